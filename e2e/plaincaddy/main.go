//go:build e2e

// Command plaincaddy is Caddy without this module, of the same version and with
// the same dependencies: what the benchmarks compare with.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	_ "github.com/caddyserver/caddy/v2/modules/standard"
)

func main() {
	caddycmd.Main()
}
