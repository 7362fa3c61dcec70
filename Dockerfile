# Server 5, a worker or a client, without root and with a read-only root file system. See docs/deploy.md.
FROM python:3.13-slim AS build
WORKDIR /build
COPY . .
# PIP_CONSTRAINT, unlike -c, also pins the build dependencies.
RUN python -m venv /opt/msd \
    && PIP_CONSTRAINT=/build/constraints.txt /opt/msd/bin/pip install --no-cache-dir '.[metrics,store]' \
    && /opt/msd/bin/pip uninstall --yes pip

FROM python:3.13-slim
COPY --from=build /opt/msd /opt/msd
# Commands find config.toml in the current folder.
WORKDIR /etc/msd
COPY deploy/config.toml .
RUN install --directory --mode=0700 --owner=10001 --group=10001 /var/lib/msd /var/cache/msd
# The keys are in /var/lib/msd/keys, the digests of the shared files in /var/cache/msd, everything else in /tmp.
ENV PATH=/opt/msd/bin:$PATH XDG_CONFIG_HOME=/var/lib XDG_CACHE_HOME=/var/cache
VOLUME /var/lib/msd /var/cache/msd
USER 10001:10001
# In a container with MSD_LISTEN it looks for the worker there. The first indexing of many files takes time.
HEALTHCHECK --interval=10s --timeout=10s --start-period=1h CMD ["msd", "health"]
ENTRYPOINT ["msd"]
CMD ["serve", "--plain", "--verbose"]
