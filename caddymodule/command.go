package caddymodule

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "token-revocation",
		Usage: "mint|revoke|restore|import|status|reseed|acknowledge|init|heartbeat",
		Short: "Revokes OAuth tokens and shows the state of the denylist",
		Long: `
Revokes OAuth access tokens by what they say (a user, a client, a session, a
single token), undoes revocations, shows what a running Caddy knows of them, and
signs test tokens with the development issuer.

Except for init and heartbeat, which connect to the ledger itself, subcommands
talk to Caddy's admin API running at '` + caddy.DefaultAdminListen + `'. You may
explicitly specify the --address, or use the --config flag to load the admin
address from your config, if not using the default.`,
		CobraFunc: func(cmd *cobra.Command) {
			cmd.AddCommand(mintCommand(), revokeCommand(), restoreCommand(), importCommand(), statusCommand(),
				reseedCommand(), acknowledgeCommand(), initCommand(), heartbeatCommand())
		},
	})
}

func subcommand(use, short, long string, run caddycmd.CommandFunc) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Long: long, Args: cobra.NoArgs}
	cmd.Flags().StringP("address", "", "", "Address of the administration API listener (if --config is not used)")
	cmd.Flags().StringP("config", "c", "", "Configuration file (if --address is not used)")
	cmd.Flags().StringP("adapter", "a", "", "Name of config adapter to apply (if --config is used)")
	cmd.RunE = caddycmd.WrapCommandFuncForCobra(run)
	return cmd
}

func mintCommand() *cobra.Command {
	cmd := subcommand("mint", "Signs a test token with the development issuer",
		"Signs an access token with the development issuer of a Caddy that runs on this machine, and prints it.", cmdMint)
	cmd.Flags().StringP("subject", "", "", "The user (sub)")
	cmd.Flags().StringP("client-id", "", "", "The client that the token is issued to (client_id)")
	cmd.Flags().StringP("session-id", "", "", "The login session (sid)")
	cmd.Flags().StringArrayP("audience", "", nil, "The audience (aud); may be repeated")
	cmd.Flags().StringArrayP("claim", "", nil, "A further claim, as name=value; may be repeated")
	cmd.Flags().StringP("lifetime", "", "", "How long the token lives, such as 10m")
	cmd.Flags().StringP("alg", "", "", "The signature algorithm: ES256, RS256 or EdDSA")
	return cmd
}

func cmdMint(fl caddycmd.Flags) (int, error) {
	lifetime, err := durationFlag(fl, "lifetime")
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	audience, err := fl.GetStringArray("audience")
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	claims, err := claimFlags(fl)
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	extra := make(map[string]any, len(claims))
	for name, value := range claims {
		extra[name] = value
	}
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	err = callAdmin(fl, http.MethodPost, "mint", mintRequest{
		Subject:   fl.String("subject"),
		ClientID:  fl.String("client-id"),
		SessionID: fl.String("session-id"),
		Audience:  audience,
		Lifetime:  lifetime,
		Algorithm: fl.String("alg"),
		Claims:    extra,
	}, &answer)
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	fmt.Println(answer.AccessToken)
	return caddy.ExitCodeSuccess, nil
}

// criteriaFlags are the flags that name tokens.
func criteriaFlags(cmd *cobra.Command) {
	cmd.Flags().StringP("issuer", "", "", "The tokens' issuer (default: the only one configured)")
	cmd.Flags().StringP("subject", "", "", "Tokens of this user (sub)")
	cmd.Flags().StringP("client-id", "", "", "Tokens issued to this client (client_id)")
	cmd.Flags().StringP("session-id", "", "", "Tokens of this login session (sid)")
	cmd.Flags().StringP("token-id", "", "", "The token with this id (jti)")
	cmd.Flags().StringP("key-thumbprint", "", "", "Tokens signed with the key of this RFC 7638 thumbprint")
	cmd.Flags().StringArrayP("claim", "", nil, "Tokens with another claim, as name=value; may be repeated")
	cmd.Flags().BoolP("whole-issuer", "", false, "Every token of the issuer, if no claim is given")
	cmd.Flags().StringP("reason", "", "", "Why, for people; no secrets")
}

const criteriaHelp = `
The flags that name tokens are combined: --subject alice --client-id app means
the tokens of alice that were issued to app. `

func revokeCommand() *cobra.Command {
	cmd := subcommand("revoke", "Revokes tokens", criteriaHelp+`

Without --block, tokens issued after this moment pass: the user can log in again.
With it, new tokens are denied too, until --lifetime is over. A single token
(--token-id, --token) is blocked unless a cutoff is asked for.

A token that is a JWT is verified first. An opaque one is asked about at its
--issuer, if that has introspection, and recorded by its hash. Nothing but the hash
is known of the opaque tokens of an issuer that is not asked: other criteria could
match nothing and are refused.`, cmdRevoke)
	criteriaFlags(cmd)
	cmd.Flags().StringP("token", "", "", "Revoke this one token: - reads it from standard input, which keeps it out of the process list")
	cmd.Flags().BoolP("block", "", false, "Deny new tokens too")
	cmd.Flags().StringP("issued-before", "", "", "Deny tokens issued up to this time (RFC 3339 or Unix seconds; default: now)")
	cmd.Flags().StringP("authenticated-before", "", "", "Deny tokens of logins up to this time, refreshed ones too: a time, or now")
	cmd.Flags().StringP("lifetime", "", "", "How long the revocation stands, such as 1h")
	return cmd
}

func cmdRevoke(fl caddycmd.Flags) (int, error) {
	request, err := criteriaRequest(fl)
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	if request.Lifetime, err = durationFlag(fl, "lifetime"); err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	if err := cutoffFlags(fl, &request); err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	if fl.Changed("token") {
		request.Token, err = tokenFlag(fl)
		if err != nil {
			return caddy.ExitCodeFailedStartup, err
		}
	}
	return decideAndPrint(fl, "revocations", request)
}

// tokenFlag returns the token to be revoked.
func tokenFlag(fl caddycmd.Flags) (string, error) {
	token := fl.String("token")
	if token == "-" {
		input, err := io.ReadAll(io.LimitReader(os.Stdin, maxAdminBody))
		if err != nil {
			return "", fmt.Errorf("reading the token: %w", err)
		}
		token = strings.TrimSpace(string(input))
	}
	if token == "" {
		return "", errors.New("--token is empty")
	}
	return token, nil
}

func cutoffFlags(fl caddycmd.Flags, request *revocationRequest) error {
	given := 0
	if fl.Bool("block") {
		request.Mode = "block"
		given++
	}
	for flag, mode := range map[string]string{
		"issued-before":        "issued_before",
		"authenticated-before": "authenticated_before",
	} {
		if !fl.Changed(flag) {
			continue
		}
		value := fl.String(flag)
		given++
		request.Mode = mode
		if value == "now" {
			continue
		}
		cutoff, err := parseTime(value)
		if err != nil {
			return fmt.Errorf("--%s: %w", flag, err)
		}
		request.Cutoff = cutoff
	}
	if given > 1 {
		return fmt.Errorf("use only one of --block, --issued-before and --authenticated-before")
	}
	return nil
}

func parseTime(text string) (int64, error) {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && n > 0 {
		return n, nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil || t.Unix() <= 0 {
		return 0, fmt.Errorf("%q is neither now, nor Unix seconds, nor a time such as 2026-01-31T12:00:00Z", text)
	}
	return t.Unix(), nil
}

func restoreCommand() *cobra.Command {
	cmd := subcommand("restore", "Undoes revocations", criteriaHelp+`

Undoes the revocations recorded so far for exactly these criteria. Tokens may
still be denied by others: alice's tokens by a revocation of her session, say.`, cmdRestore)
	criteriaFlags(cmd)
	return cmd
}

func cmdRestore(fl caddycmd.Flags) (int, error) {
	request, err := criteriaRequest(fl)
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	return decideAndPrint(fl, "restorations", request)
}

func decideAndPrint(fl caddycmd.Flags, route string, request revocationRequest) (int, error) {
	var answer revocationAnswer
	if err := callAdmin(fl, http.MethodPost, route, request, &answer); err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	if answer.Stood {
		fmt.Printf("%s\nit stood already, as entry %d\n", answer.Effect, answer.Sequence)
		return caddy.ExitCodeSuccess, nil
	}
	fmt.Printf("%s\nrecorded as entry %d, decision %s\n", answer.Effect, answer.Sequence, answer.ID)
	return caddy.ExitCodeSuccess, nil
}

func criteriaRequest(fl caddycmd.Flags) (revocationRequest, error) {
	request := revocationRequest{
		Issuer:      fl.String("issuer"),
		Reason:      fl.String("reason"),
		WholeIssuer: fl.Bool("whole-issuer"),
		Claims:      map[string]string{},
	}
	for flag, claim := range map[string]string{
		"subject": "sub", "client-id": "client_id", "session-id": "sid", "token-id": "jti", "key-thumbprint": "kid",
	} {
		if !fl.Changed(flag) {
			continue
		}
		// An empty variable of a script must not widen what is revoked.
		if request.Claims[claim] = fl.String(flag); request.Claims[claim] == "" {
			return request, fmt.Errorf("--%s is empty: leave it out, or give a value", flag)
		}
	}
	claims, err := claimFlags(fl)
	if err != nil {
		return request, err
	}
	for name, value := range claims {
		if _, twice := request.Claims[name]; twice {
			return request, fmt.Errorf("claim %q is given twice: a criteria holds one value for each claim", name)
		}
		request.Claims[name] = value
	}
	return request, nil
}

// claimFlags returns what --claim name=value says.
func claimFlags(fl caddycmd.Flags) (map[string]string, error) {
	pairs, err := fl.GetStringArray("claim")
	if err != nil {
		return nil, err
	}
	claims := make(map[string]string, len(pairs))
	for _, pair := range pairs {
		name, value, ok := strings.Cut(pair, "=")
		if !ok || name == "" || value == "" {
			return nil, fmt.Errorf("--claim %q is not of the form name=value", pair)
		}
		if _, twice := claims[name]; twice {
			return nil, fmt.Errorf("claim %q is given twice", name)
		}
		claims[name] = value
	}
	return claims, nil
}

func statusCommand() *cobra.Command {
	return subcommand("status", "Shows what a running Caddy knows of revocations",
		"Prints the state of the denylist and of the ledger as JSON. The exit code is 0 if requests are being served.", cmdStatus)
}

func cmdStatus(fl caddycmd.Flags) (int, error) {
	var answer statusAnswer
	if err := callAdmin(fl, http.MethodGet, "status", nil, &answer); err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(answer); err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	if !answer.Serving {
		return caddy.ExitCodeFailedStartup, fmt.Errorf("protected routes answer 503: the denylist is %s %s", answer.State, answer.Incomplete)
	}
	return caddy.ExitCodeSuccess, nil
}

func durationFlag(fl caddycmd.Flags, name string) (caddy.Duration, error) {
	text := fl.String(name)
	if text == "" {
		return 0, nil
	}
	d, err := caddy.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("--%s: %w", name, err)
	}
	return caddy.Duration(d), nil
}

// callAdmin sends a request to the admin API of the Caddy that the flags name.
func callAdmin(fl caddycmd.Flags, method, route string, body, answer any) error {
	address, err := caddycmd.DetermineAdminAPIAddress(fl.String("address"), nil, fl.String("config"), fl.String("adapter"))
	if err != nil {
		return fmt.Errorf("determining the admin API address: %w", err)
	}
	var reader io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return err
		}
		reader = bytes.NewReader(encoded)
	}
	response, err := caddycmd.AdminAPIRequest(address, method, adminPrefix+route, make(http.Header), reader)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(answer); err != nil {
		return fmt.Errorf("decoding the answer: %w", err)
	}
	return nil
}
