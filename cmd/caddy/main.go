// Command caddy is Caddy with the token revocation module built in.
//
// It is what `xcaddy build` produces from the lines in xcaddy.txt, checked in
// so that `go run ./cmd/caddy` works from a checkout with Go alone.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/edge-revocation/caddy-token-revocation/caddymodule"
)

func main() {
	caddycmd.Main()
}
