# What speaks for Postgres and for Redis to Prometheus: Debian's builds of their exporters, one image for both.
FROM debian:bookworm-slim
RUN apt-get update -q \
 && apt-get install -y -q --no-install-recommends prometheus-postgres-exporter prometheus-redis-exporter wget \
 && rm -rf /var/lib/apt/lists/*
USER 10001:10001
