package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	"github.com/edge-revocation/caddy-token-revocation/revocation/ledger"
)

func initCommand() *cobra.Command {
	cmd := ledgerCommand("init", "Creates the ledger on a NATS server",
		`
Creates the stream that the config names, if there is none, and makes it a
ledger. It does the same as an edge with "create" in its config, once and with
whatever credentials the given config has: an operator's.`, cmdInit)
	cmd.Flags().IntP("replicas", "", 0, "How many servers of the cluster keep the stream (default: as configured, else 1)")
	return cmd
}

func heartbeatCommand() *cobra.Command {
	return ledgerCommand("heartbeat", "Writes heartbeats for a fleet whose edges may not",
		`
Writes a heartbeat entry to the ledger at the configured interval, until it is
stopped. A fleet needs it if none of its edges has permission to write
heartbeats: they prove by them that they are in sync. The config's user needs
that permission and no other: the producer's role has it.`, cmdHeartbeat)
}

// ledgerCommand is a command that connects to the ledger itself, not to a
// running Caddy.
func ledgerCommand(use, short, long string, run caddycmd.CommandFunc) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Long: long, Args: cobra.NoArgs}
	cmd.Flags().StringP("config", "c", "", "Configuration file (default: Caddyfile in this directory)")
	cmd.Flags().StringP("adapter", "a", "", "Name of config adapter to apply")
	cmd.RunE = caddycmd.WrapCommandFuncForCobra(run)
	return cmd
}

func cmdInit(fl caddycmd.Flags) (int, error) {
	l, _, err := openConfiguredLedger(fl, func(n *NATSConfig) {
		n.Create = true
		if replicas := fl.Int("replicas"); replicas > 0 {
			n.Replicas = replicas
		}
	})
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	defer func() { _ = l.Close() }() // what was acknowledged is durable
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	id, err := l.Init(ctx)
	if err != nil {
		return caddy.ExitCodeFailedStartup, explain(l, err)
	}
	fmt.Printf("ledger %s in stream %s is ready\n", id, l.Status().Stream)
	return caddy.ExitCodeSuccess, nil
}

func cmdHeartbeat(fl caddycmd.Flags) (int, error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return beat(ctx, fl)
}

// beat writes heartbeats until ctx ends.
func beat(ctx context.Context, fl caddycmd.Flags) (int, error) {
	l, config, err := openConfiguredLedger(fl, func(*NATSConfig) {})
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	defer func() { _ = l.Close() }() // what was acknowledged is durable
	interval := time.Duration(config.Heartbeat)
	if interval == 0 {
		interval = ledger.DefaultHeartbeatInterval
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	working := false
	for {
		_, err := l.PublishHeartbeat(ctx)
		switch {
		case ctx.Err() != nil:
			return caddy.ExitCodeSuccess, nil
		case err != nil:
			working = false
			fmt.Fprintf(os.Stderr, "heartbeat not written, the fleet turns stale: %v\n", explain(l, err))
		case !working:
			working = true
			fmt.Printf("writing a heartbeat every %s\n", interval)
		}
		select {
		case <-ctx.Done():
			return caddy.ExitCodeSuccess, nil
		case <-ticker.C:
		}
	}
}

// explain prefers what the ledger knows of the cause, such as a wrong password,
// to what the call saw of it, most often a time-out.
func explain(l *ledger.Ledger, err error) error {
	if problem := l.Status().Problem; problem != nil && !errors.Is(err, problem) {
		return fmt.Errorf("%w: %w", err, problem)
	}
	return err
}

// openConfiguredLedger connects to the external ledger that a config names.
func openConfiguredLedger(fl caddycmd.Flags, adjust func(*NATSConfig)) (*ledger.Ledger, *resolvedLedger, error) {
	config, _, _, err := caddycmd.LoadConfig(fl.String("config"), fl.String("adapter"))
	if err != nil {
		return nil, nil, err
	}
	var parsed struct {
		Apps struct {
			App *App `json:"token_revocation"`
		} `json:"apps"`
	}
	if err := json.Unmarshal(config, &parsed); err != nil {
		return nil, nil, fmt.Errorf("reading the config: %w", err)
	}
	app := parsed.Apps.App
	if app == nil || app.Ledger == nil || app.Ledger.NATS == nil {
		return nil, nil, errors.New("the config names no NATS server: this command is for ledgers that are reached by " +
			"`nats <url...>`; an embedded one is created and kept alive by its edge")
	}
	adjust(app.Ledger.NATS)
	resolved, err := app.Ledger.resolve(caddy.NewReplacer())
	if err != nil {
		return nil, nil, err
	}
	options, err := resolved.options()
	if err != nil {
		return nil, nil, err
	}
	l, err := ledger.Open(options)
	return l, resolved, err
}
