package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
)

func importCommand() *cobra.Command {
	cmd := subcommand("import", "Revokes many tokens, one JSON object a line", `
Reads revocations, one JSON object a line, and records many of them in one entry
of the ledger. A line is what POST /token_revocation/revocations takes:

    {"claims":{"jti":"4f1c2a"},"exp":1795837776,"reason":"breach"}
    {"issuer":"https://sso.example.com","claims":{"jti":"9b07d5"},"expires":1795837776}
    {"claims":{"sub":"alice"},"mode":"issued_before","cutoff":1795232676}

exp is that of the one token that the claims name, expires the end of the
revocation, both in Unix seconds. Without either, a revocation stands for the
retention, from now on.

Lines that are at fault are listed with their numbers; the others are recorded.
When the ledger takes no more, the import stops and says so. Importing the same
again is harmless, and lines that say when they end are not recorded again if they
stand already; others are, since their end moves with the time.`, cmdImport)
	cmd.Flags().StringP("file", "f", "-", "The file to import; - is standard input")
	return cmd
}

func cmdImport(fl caddycmd.Flags) (int, error) {
	in := io.Reader(os.Stdin)
	if name := fl.String("file"); name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return caddy.ExitCodeFailedStartup, err
		}
		defer func() { _ = file.Close() }() // only read
		in = file
	}
	address, err := caddycmd.DetermineAdminAPIAddress(fl.String("address"), nil, fl.String("config"), fl.String("adapter"))
	if err != nil {
		return caddy.ExitCodeFailedStartup, fmt.Errorf("determining the admin API address: %w", err)
	}
	header := http.Header{"Content-Type": {"application/x-ndjson"}}
	var answer importAnswer
	response, err := caddycmd.AdminAPIRequest(address, http.MethodPost, adminPrefix+"import", header, in)
	if err != nil {
		// The status of an import that failed in part is an error, which has the
		// counts in its text.
		_, text, found := strings.Cut(err.Error(), "{")
		if !found || json.Unmarshal([]byte("{"+text), &answer) != nil || answer.Lines == 0 {
			return caddy.ExitCodeFailedStartup, err
		}
	} else {
		defer response.Body.Close()
		if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
			return caddy.ExitCodeFailedStartup, fmt.Errorf("decoding the answer: %w", err)
		}
	}
	fmt.Printf("%d lines read: %d recorded, %d stood already, %d failed\n", answer.Lines, answer.Recorded, answer.Stood, answer.Failed)
	for _, f := range answer.Failures {
		fmt.Fprintf(os.Stderr, "line %d: %s\n", f.Line, f.Error)
	}
	if more := answer.Failed - len(answer.Failures); more > 0 {
		fmt.Fprintf(os.Stderr, "and %d more\n", more)
	}
	switch {
	case answer.Stopped != "":
		return caddy.ExitCodeFailedStartup, fmt.Errorf("stopped after line %d: %s; import the same again later", answer.Lines, answer.Stopped)
	case answer.Failed > 0:
		return caddy.ExitCodeFailedStartup, errors.New("not every line was recorded")
	}
	return caddy.ExitCodeSuccess, nil
}

func reseedCommand() *cobra.Command {
	return subcommand("reseed", "Writes what an edge holds to a ledger that lost it", `
After the ledger's stream was deleted, emptied or rolled back to a backup, edges
that were running still deny what they held, and edges that start later do not
know it. This writes what the addressed edge holds, and the ledger lacks, to the
ledger. Use it on each edge that was running, unless the loss was meant.`, cmdReseed)
}

func cmdReseed(fl caddycmd.Flags) (int, error) {
	var answer reseedAnswer
	if err := callAdmin(fl, http.MethodPost, "reseed", nil, &answer); err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	fmt.Println(answer.Effect)
	return caddy.ExitCodeSuccess, nil
}

func acknowledgeCommand() *cobra.Command {
	cmd := subcommand("acknowledge", "Says that a ledger entry which can't be read does not matter", `
An edge that meets an entry which it can't read, because its producer broke the
rules or is newer than the edge, is incomplete until the entry ends: it may be a
revocation. This says, for the whole fleet, that it does not matter. An entry that
the addressed edge can read is refused: use restore to undo a revocation.`, cmdAcknowledge)
	cmd.Flags().Uint64P("sequence", "", 0, "The entry's place in the ledger, as status and log name it")
	cmd.Flags().StringP("reason", "", "", "Why, for people; no secrets")
	return cmd
}

func cmdAcknowledge(fl caddycmd.Flags) (int, error) {
	sequence, err := fl.GetUint64("sequence")
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	if sequence == 0 {
		return caddy.ExitCodeFailedStartup, errors.New("--sequence is missing")
	}
	var answer acknowledgmentAnswer
	err = callAdmin(fl, http.MethodPost, "acknowledgments", acknowledgmentRequest{Sequence: sequence, Reason: fl.String("reason")}, &answer)
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	fmt.Printf("%s\nrecorded as entry %d\n", answer.Effect, answer.Sequence)
	return caddy.ExitCodeSuccess, nil
}
