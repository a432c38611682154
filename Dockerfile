# syntax=docker/dockerfile:1
# The image of servers and workers; `--target flower` is that of Flower.
#     docker build -t crosscut .
ARG DEBIAN=debian:12.15-slim

FROM ${DEBIAN} AS python
RUN apt-get update \
 && apt-get upgrade -y \
 && apt-get install -y --no-install-recommends ca-certificates python3 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log

FROM python AS build
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python3 -m venv /opt/crosscut
COPY deploy/requirements.lock deploy/requirements.lock
RUN /opt/crosscut/bin/python -m pip install --only-binary :all: --require-hashes -r deploy/requirements.lock
COPY LICENSE NOTICE README.md pyproject.toml ./
COPY src src
RUN /opt/crosscut/bin/python -m pip install --no-deps --no-build-isolation . \
 && /opt/crosscut/bin/python -m pip uninstall --yes setuptools pip

FROM build AS build-flower
COPY deploy/flower.lock deploy/flower.lock
RUN python3 -m venv /opt/flower \
 && /opt/flower/bin/python -m pip install --only-binary :all: --require-hashes -r deploy/flower.lock \
 && /opt/flower/bin/python -m pip uninstall --yes setuptools pip

FROM python AS flower
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin crosscut
COPY --from=build-flower /opt/flower /opt/flower
USER crosscut
EXPOSE 5555
ENTRYPOINT ["/opt/flower/bin/celery", "flower", "--port=5555"]

FROM python AS crosscut
# A new named volume takes over what is in the folder it is mounted on, and its owner.
RUN useradd --uid 10001 --home-dir /data --no-create-home --shell /usr/sbin/nologin crosscut \
 && install --directory --owner=crosscut --group=crosscut --mode=0700 /data \
 && install --directory --owner=crosscut --group=crosscut /shared /shared/pieces /videos
COPY --from=build /opt/crosscut /opt/crosscut
ENV PATH=/opt/crosscut/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    CROSSCUT_DATA_DIR=/data \
    CROSSCUT_DESTINATION=/videos
USER crosscut
WORKDIR /data
VOLUME ["/data"]
EXPOSE 8000
# What a server has in hand when it is told to end takes CROSSCUT_GRACE_SECONDS: stop it with --time 40.
STOPSIGNAL SIGTERM
ENTRYPOINT ["crosscut"]
CMD ["serve", "--host", "0.0.0.0"]
