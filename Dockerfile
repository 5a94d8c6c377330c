# One static executable with the browser client inside, run by a user without rights.
#
#   docker build --build-arg VERSION=$(git describe --tags --always) --build-arg COMMIT=$(git rev-parse HEAD) -t conclave .
#   docker run --rm -v conclave:/var/lib/conclave conclave init -dir /var/lib/conclave -server-name example.org
#   docker run -v conclave:/var/lib/conclave -p 8008:8008 -p 8448:8448 conclave
#
# docs/operations.md says the rest; deploy/compose.yaml adds PostgreSQL.

FROM node:20-bookworm-slim AS client
WORKDIR /src/web
COPY web/package.json web/package-lock.json ./
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY web ./
RUN npm run build

FROM golang:1.26-bookworm AS server
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
COPY --from=client /src/web/dist web/dist
ARG VERSION=container
ARG COMMIT=unknown
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.stampedVersion=$VERSION -X main.stampedCommit=$COMMIT" -o /out/conclave ./cmd/conclave
# The home of the server's data, and its user, as the final image needs them: it has no shell to make them.
RUN mkdir -p /out/root/etc /out/root/var/lib/conclave /out/root/tmp && echo 'conclave:x:10001:10001:Conclave:/var/lib/conclave:/sbin/nologin' > /out/root/etc/passwd && chmod 0700 /out/root/var/lib/conclave && chmod 1777 /out/root/tmp

FROM scratch
COPY --from=server /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=server --chown=10001:10001 /out/root /
COPY --from=server /out/conclave /usr/local/bin/conclave
USER 10001:10001
WORKDIR /var/lib/conclave
VOLUME /var/lib/conclave
# Inside a container, loopback reaches nobody. The admin port stays on loopback: open it with
# CONCLAVE_LISTEN_ADMIN on a private network to let an orchestrator ask /readyz.
ENV CONCLAVE_LISTEN_CLIENT=0.0.0.0:8008 CONCLAVE_LISTEN_FEDERATION=0.0.0.0:8448
EXPOSE 8008 8448
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/conclave"]
CMD ["serve", "-config", "/var/lib/conclave/config.yaml"]
