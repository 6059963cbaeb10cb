FROM python:3.13-slim AS build
WORKDIR /build
RUN python -m venv /opt/leasehold
COPY requirements/serve.txt requirements/postgres.txt requirements/otel.txt requirements/
RUN /opt/leasehold/bin/pip install --no-cache-dir -r requirements/serve.txt -r requirements/postgres.txt \
    -r requirements/otel.txt
COPY pyproject.toml README.md ./
COPY src src
COPY clients/python/src clients/python/src
RUN /opt/leasehold/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.13-slim
RUN useradd --system --uid 10001 --home-dir /data --create-home leasehold
COPY --from=build /opt/leasehold /opt/leasehold
ENV PATH=/opt/leasehold/bin:$PATH
USER leasehold
WORKDIR /data
VOLUME /data
EXPOSE 8080
# Set host and port in the environment, not as flags: the health check reads them there, too. It asks the service of this
# container, also if LEASEHOLD_URL names another one.
ENV LEASEHOLD_HOST=0.0.0.0
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s \
    CMD ["env", "--unset=LEASEHOLD_URL", "leasehold", "status", "--live", "--timeout", "4s"]
# The kernel drops signals to PID 1 that have no handler, and Python needs a moment to install one. A blocked signal stays
# pending until then.
ENTRYPOINT ["env", "--block-signal=TERM,INT", "leasehold"]
CMD ["serve"]
