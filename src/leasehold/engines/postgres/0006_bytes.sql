-- Version 6: values that are bytes, beside those in JSON.
--
-- In a row with bytes, `exact` is empty and `data` is null (JSON). Servers of the version before cannot read such an entry,
-- and say so. When they write the entry, they set `exact` to NULL or to a text, so the bytes that remain do not count.
ALTER TABLE data
    ADD COLUMN media text,   -- the media type of the bytes
    ADD COLUMN bytes bytea;
-- Most bytes are compressed already: images, PDF.
ALTER TABLE data ALTER COLUMN bytes SET STORAGE EXTERNAL;
