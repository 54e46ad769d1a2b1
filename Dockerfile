# The server in a container: `make containers` builds and tries it, compose.yaml runs it with an object store.
# For Ray Serve see server/deploy/Dockerfile.
ARG BASE=docker.io/library/debian:bookworm-slim

FROM ${BASE} AS build
RUN apt-get update && apt-get install --yes --no-install-recommends python3-venv ca-certificates
WORKDIR /src
COPY . .
# For a pip that goes by certificates of its own
ARG PIP_CERT
RUN python3 -m venv /build && python3 -m venv --without-pip /opt/relight \
 && /build/bin/pip --python /opt/relight/bin/python install --no-cache-dir --no-compile . -r requirements-cluster.txt
# What is never imported goes: tests, stubs, converters of models. What every start imports is compiled.
RUN cd /opt/relight/lib/python3*/site-packages \
 && find . -depth -type d -name tests -exec rm -r {} + \
 && find . -name '*.pyi' -delete \
 && rm -rf onnxruntime/transformers onnxruntime/quantization onnxruntime/tools numpy/distutils numpy/f2py \
 && cd / && RELIGHT_JOBS_DIR=/tmp/jobs /opt/relight/bin/python -c \
      "import obstore.store, server.image.decoder_process; from server import app"
# Of Debian, only what Python and the wheels need: no shell, no package manager.
RUN mkdir -p /root/image/tmp /root/image/jobs /root/image/etc/ssl/certs /root/image/usr/lib /root/image/usr/lib64 && cd / \
 && for package in libc6 libgcc-s1 libstdc++6 zlib1g libexpat1 libffi8 libbz2-1.0 liblzma5 libssl3 libsqlite3-0 libuuid1 \
      libcrypt1 python3-minimal python3.11-minimal libpython3.11-minimal libpython3.11-stdlib; \
    do dpkg -L $package; done | grep -v -e ^/usr/share/doc -e ^/usr/share/man -e /gconv -e ^/\\. | sort -u > /root/files \
 && find /usr/lib/python3.11 -name '*.pyc' >> /root/files \
 && tar --create --no-recursion --files-from /root/files | tar --extract --directory /root/image \
 && cp --dereference /etc/ssl/certs/ca-certificates.crt /root/image/etc/ssl/certs/ \
 && echo 'relight:x:10001:10001::/jobs:/sbin/nologin' > /root/image/etc/passwd \
 && echo 'relight:x:10001:' > /root/image/etc/group \
 && chmod 1777 /root/image/tmp && chmod 700 /root/image/jobs && chown 10001:10001 /root/image/jobs

FROM scratch
COPY --from=build /root/image /
COPY --from=build /opt/relight /opt/relight
ENV PATH=/opt/relight/bin:/usr/bin PYTHONDONTWRITEBYTECODE=1 RELIGHT_JOBS_DIR=/jobs
# Only /jobs, and /tmp for uploads on their way, are written; the rest may be mounted read-only.
VOLUME /jobs
WORKDIR /opt/relight
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
  CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
CMD ["relight-server", "serve", "--host", "0.0.0.0"]
