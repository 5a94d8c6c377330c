# Everything is in internal/tools/*.sh, which also say what they do. make run and make test install what
# they need.

.PHONY: run test test-long check build dev bench coverage shapes fmt

run: ## build, and start a server for this machine in ./data; prints where to open it
	@internal/tools/run.sh

test: ## everything in short form
	@internal/tools/test.sh

test-long: ## all seeds, graphs, kills and fuzzing, and a new machine
	@internal/tools/test.sh long

check: ## formatting, static checks, import directions, types and lint of the client
	@internal/tools/check.sh

build: ## bin/conclave, with the client inside
	@internal/tools/build.sh

dev: build ## two federating servers on loopback
	@bin/conclave dev -dir data/dev

bench: ## the Go benchmarks, against both databases
	@internal/tools/bench.sh

coverage: ## what of the specification the tests exercise, as the last test run recorded it
	@internal/tools/coverage.sh

shapes: ## what answers look like, from a clone of the specification: make shapes SPEC=FOLDER
	@go run ./internal/tools/openapi -spec "$(SPEC)"

fmt: ## format Go and TypeScript
	@gofmt -w $$(git ls-files '*.go')
	@npm --prefix web run --silent fmt
