// Package caddymodule is the Caddy adapter of token revocation: an app that
// holds the ledger, the denylist and the trusted issuers; a handler that serves
// the revocation endpoint of RFC 7009; a handler that refuses revoked access
// tokens; an admin API and a command.
//
// It turns configuration into the options of the packages below revocation, ties
// their lifetimes to Caddy's, and holds no protocol logic of its own.
package caddymodule
