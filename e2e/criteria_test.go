//go:build e2e

package e2e

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"
)

// criterion is one of the four kinds of revocation by criteria.
type criterion struct {
	name  string
	claim string
	flag  string // of the command
	// member of a request to mint that makes a token of another one. Every
	// token has a jti of its own.
	member []string
}

var criteria = []criterion{
	{"token", "jti", "--token-id", nil},
	{"user", "sub", "--subject", []string{"subject"}},
	{"client", "client_id", "--client-id", []string{"client_id"}},
	{"session", "sid", "--session-id", []string{"session_id"}},
}

func TestRevocationByEachCriterionAsCutoffAndAsBlock(t *testing.T) {
	t.Parallel()
	first := newFirstEdge(t).run()
	second := newSecondEdge(t, first).run()
	issuer := claim(t, first.mintFor("anybody"), "iss")

	for _, c := range criteria {
		for _, mode := range []string{"issued_before", "block"} {
			for _, by := range []string{"admin API", "command"} {
				t.Run(c.name+" "+mode+" by "+by, func(t *testing.T) {
					t.Parallel()
					own := strings.ReplaceAll(strings.ToLower(t.Name()), "/", "-")
					mint := func(others ...string) string {
						request := map[string]any{"subject": "u-" + own, "client_id": "c-" + own, "session_id": "s-" + own}
						for _, name := range others {
							request[name] = "other-" + own
						}
						return first.mint(request)
					}
					token := mint()
					neighbour := mint(c.member...)
					for _, e := range []*edge{first, second} {
						e.wantPass("a fresh token", token)
						e.wantPass("its neighbour", neighbour)
					}

					value := claim(t, token, c.claim)
					if by == "command" {
						revokeByCommand(t, first, issuer, c.flag, value, mode)
					} else {
						revokeByAPI(t, first, issuer, c.claim, value, mode)
					}
					first.wantRefused("the token", token)
					second.eventuallyRefused("the token", token)
					for _, e := range []*edge{first, second} {
						e.wantPass("its neighbour", neighbour)
					}
					if c.claim == "jti" {
						return // no other token has it
					}
					if mode == "block" {
						first.wantRefused("a new token", mint())
						time.Sleep(3 * time.Second) // beyond what a cutoff allows for the issuer's clock
						first.wantRefused("a token of a while later", mint())
						second.wantRefused("a token of a while later", mint())
						return
					}
					eventually(t, 15*time.Second, "new tokens pass", func() (bool, string) {
						a := first.get(mint())
						return a.status == http.StatusOK, a.String()
					})
					second.wantPass("a new token", mint())
					first.wantRefused("the old token", token)
				})
			}
		}
	}
}

func revokeByAPI(t *testing.T, e *edge, issuer, name, value, mode string) {
	t.Helper()
	a := e.api(http.MethodPost, "/token_revocation/revocations", map[string]any{
		"issuer": issuer, "claims": map[string]string{name: value}, "mode": mode, "lifetime": "1h", "reason": "e2e",
	})
	var recorded struct {
		Sequence      uint64 `json:"sequence"`
		NewTokensPass *bool  `json:"new_tokens_pass"`
		Effect        string `json:"effect"`
	}
	if err := json.Unmarshal([]byte(a.body), &recorded); err != nil || a.status != http.StatusOK {
		t.Fatalf("revoking: %s", a)
	}
	if recorded.Sequence == 0 || recorded.NewTokensPass == nil || *recorded.NewTokensPass != (mode != "block") {
		t.Errorf("the answer does not say plainly what was recorded: %s", a.body)
	}
	says := "new tokens pass"
	if mode == "block" {
		says = "new ones too"
	}
	if !strings.Contains(recorded.Effect, says) {
		t.Errorf("the answer does not say %q: %s", says, a.body)
	}
}

func revokeByCommand(t *testing.T, e *edge, issuer, flag, value, mode string) {
	t.Helper()
	args := []string{"revoke", "--issuer", issuer, flag, value, "--reason", "e2e"}
	if mode == "block" {
		args = append(args, "--block", "--lifetime", "1h")
	} else {
		args = append(args, "--issued-before", "now")
	}
	out, err := e.command(args...)
	if err != nil {
		t.Fatalf("revoking: %v\n%s", err, out)
	}
	if passes := strings.Contains(out, "new tokens pass"); passes == (mode == "block") {
		t.Errorf("the command does not say plainly whether new tokens pass: %s", out)
	}
}

func TestRestoreUndoesWhatWasRevokedBeforeIt(t *testing.T) {
	e := newFirstEdge(t).run()
	token := e.mintFor("alice")
	issuer := claim(t, token, "iss")
	revokeByAPI(t, e, issuer, "sub", "alice", "block")
	e.wantRefused("alice's token", token)
	if out, err := e.command("restore", "--issuer", issuer, "--subject", "alice"); err != nil {
		t.Fatalf("restoring: %v\n%s", err, out)
	}
	e.wantPass("alice's token after the restore", token)
	revokeByAPI(t, e, issuer, "sub", "alice", "block")
	e.wantRefused("alice's token, revoked again", token)
	e.process.kill()
	e.run()
	e.wantRefused("alice's token after a restart", token)
}

func TestCommandsWorkAsTheREADMEShowsThem(t *testing.T) {
	e := newFirstEdge(t).run()
	token, err := e.command("mint", "--subject", "alice", "--client-id", publicClient, "--session-id", "s1", "--lifetime", "10m")
	if err != nil || strings.ContainsAny(token, " \n") || strings.Count(token, ".") != 2 {
		t.Fatalf("mint prints something else than a token: %v %q", err, token)
	}
	e.wantPass("the minted token", token)
	if sid := claim(t, token, "sid"); sid != "s1" {
		t.Errorf("sid is %q", sid)
	}
	out, err := e.command("status")
	if err != nil || !strings.Contains(out, "in_sync") {
		t.Errorf("status: %v\n%s", err, out)
	}
	// Nobody names everyone by leaving something out.
	if out, err := e.command("revoke", "--issuer", claim(t, token, "iss")); err == nil {
		t.Errorf("a revocation without claims was recorded: %s", out)
	}
	if out, err := e.command("revoke", "--issuer", "https://nobody.example", "--subject", "alice"); err == nil {
		t.Errorf("a revocation at an unknown issuer was recorded: %s", out)
	}
	e.wantPass("the minted token", token)
	if entries := e.status().Denylist.Entries; entries != 0 {
		t.Errorf("%d entries were stored", entries)
	}
}
