// Package e2e tests the built binary, not the packages: it starts Caddy with the
// module in it, as many as an operator would, and speaks HTTP to them. Its
// counterparties are authorization servers that are not ours: node-oidc-provider
// from npm, django-oauth-toolkit from Debian, and a server made of ory/fosite,
// which is a Go module of its own in fosite/.
//
// Its files have the build tag e2e:
//
//	go test -tags e2e ./e2e/...
//
// builds cmd/caddy with the race detector and starts that, or the binary that
// the environment variable CADDY_TOKEN_REVOCATION_BIN names. Without what they
// need, tests are skipped, unless CI is set.
//
// The tests of faults, whose names begin with TestFault, have a short form and a
// long one, which the environment variable FAULTS=long chooses:
//
//	FAULTS=long go test -tags e2e ./e2e/... -run Fault -v -timeout 90m
//
// TestReceiversSeeWhatWasJudged makes up requests for 15 s, or as long as the
// environment variable RECEIVERS says. FuzzReceivers starts from some of them:
//
//	RECEIVERS=10m go test -tags e2e ./e2e/... -run Receivers -v -timeout 20m
//	go test -tags e2e ./e2e/ -run '^$' -fuzz FuzzReceivers -fuzztime 10m
//
// The figures of the README are measured by benchmarks, which print them:
//
//	go test -tags e2e ./e2e/... -run '^$' -bench . -benchtime 1x
package e2e
