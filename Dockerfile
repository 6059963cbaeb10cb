FROM python:3.13-slim AS build
WORKDIR /build
RUN python -m venv /opt/leasehold
COPY requirements/serve.txt requirements/postgres.txt requirements/
RUN /opt/leasehold/bin/pip install --no-cache-dir -r requirements/serve.txt -r requirements/postgres.txt
COPY pyproject.toml README.md ./
COPY src src
RUN /opt/leasehold/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.13-slim
RUN useradd --system --uid 10001 --home-dir /data --create-home leasehold
COPY --from=build /opt/leasehold /opt/leasehold
ENV PATH=/opt/leasehold/bin:$PATH
USER leasehold
WORKDIR /data
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/health/live', timeout=2)"]
ENTRYPOINT ["leasehold"]
CMD ["serve", "--host", "0.0.0.0"]
