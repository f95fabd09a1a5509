# Muster. `make demo` and `make test` need Go, make, node and, for the browser
# test and for `make proto`, Debian's chromium and protobuf-compiler.

GO     ?= go
BIN    := bin/muster
SEEDS  ?= 20000
RAFT   ?= 100000
KILLS  ?= 200
FUZZ   ?= 30s

.PHONY: demo build test race sim kill chaos fuzz bench realtime soak lint proto docs defects ci clean

## demo: one node, embedded storage, the demo page; prints its address
demo: build
	$(BIN) serve --dev

build:
	$(GO) build -o $(BIN) ./cmd/muster

## test: everything a change must pass
test: build lint
	$(GO) test -timeout 25m ./...
	$(GO) test -race -timeout 25m ./actors/... ./edge/... ./clients/...
	$(GO) test -race -short -timeout 25m ./cluster/... ./persistence/...
	node --test clients/js/

race:
	$(GO) test -race -timeout 30m ./...

## sim: the seeded simulators, many seeds; SEEDS=n for presence and rooms, RAFT=n for the Raft host
sim:
	MUSTER_SEEDS=$(SEEDS) $(GO) test -timeout 4h -run 'Sim' ./actors/... ./clients/go
	MUSTER_SEEDS=$(RAFT) $(GO) test -timeout 8h -run 'TestSim$$' ./cluster

## kill: kill -9 under durable load, KILLS times; then torn writes
kill:
	$(GO) test ./cmd/muster -timeout 2h -count=1 -v -run 'TestKill|TestTorn' -kills $(KILLS)

## chaos: break a cluster of processes, every scenario; as root also its network and disks
chaos: build
	$(BIN) chaos

## fuzz: every fuzz target for FUZZ each
fuzz:
	@for pkg in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
	    echo "$$pkg $$target"; $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZ) $$pkg || exit 1; \
	  done; done

## bench: every scenario on this machine, server on one core, generator on the other
bench: build
	@for s in floor idle connect watch churn slow send offline groups growth across cluster; do $(BIN) bench $$s || exit 1; done

## realtime: a client that falls silent, with the default ping and grace (46 s)
realtime:
	$(GO) test ./cmd/muster -run TestSilentClient -count=1 -real-time

## soak: ten minutes of churn at half load
soak: build
	$(BIN) bench churn --half --duration 10m

lint:
	@out=$$(gofmt -l $$(git ls-files '*.go' | grep -v '\.pb\.go$$')); \
	  if [ -n "$$out" ]; then echo "not formatted:"; echo "$$out"; exit 1; fi
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

## proto: regenerates what the schemas generate; the result is committed
proto:
	sh clients/wire/generate.sh
	sh actors/link/generate.sh
	sh actors/row/generate.sh

## docs: renders docs/errors.md and docs/configuration.md from the code
docs:
	$(GO) test ./clients/wire -run Docs -update
	$(GO) test ./cmd/muster -run ConfigurationDocs -update

## defects: measures how soon each injected defect is found, and writes the table of docs/verification.md; some ten minutes
defects:
	$(GO) test -p 1 -timeout 1h -count=1 -run TestVerification ./actors ./actors/presence ./actors/room ./cluster ./cluster/birth ./cluster/gossip ./cluster/meta ./edge -update

ci:
	bash .ci/run

clean:
	rm -rf bin
