# An image with one replica and the packages that it needs. Its data is in the volume /data.
FROM python:3.12-slim

ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app

COPY requirements-serve.lock ./
RUN python -m pip install --require-hashes -r requirements-serve.lock

COPY paxos ./paxos
COPY storage ./storage
COPY kvstore ./kvstore

RUN useradd --system --uid 10001 --home-dir /app kvstore && mkdir /data && chown kvstore /data
USER kvstore
VOLUME /data

ENV KVSTORE_LISTEN=0.0.0.0:8001 KVSTORE_PEER_LISTEN=0.0.0.0:9001 KVSTORE_DATA=/data
EXPOSE 8001 9001

# A replica is ready when it knows a leader and has applied what the leader has committed.
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8001/readyz', timeout=2)"]

ENTRYPOINT ["python", "-m", "kvstore"]
CMD ["serve"]
