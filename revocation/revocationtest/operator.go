package revocationtest

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
)

// OperatorNATS is a NATS server in operator mode, as larger installations run
// it: it trusts an operator's signature, and its users identify themselves by
// credentials files.
type OperatorNATS struct {
	*NATS

	account nkeys.KeyPair
}

// StartOperatorNATS starts one with one account that has JetStream.
func StartOperatorNATS(tb testing.TB) *OperatorNATS {
	tb.Helper()
	operator, operatorKey := keyPair(tb, nkeys.CreateOperator)
	account, accountKey := keyPair(tb, nkeys.CreateAccount)
	_, systemKey := keyPair(tb, nkeys.CreateAccount)

	op := jwt.NewOperatorClaims(operatorKey)
	op.Name = "test"
	op.SystemAccount = systemKey
	opJWT := encodeClaims(tb, op, operator)
	trusted, err := jwt.DecodeOperatorClaims(opJWT)
	if err != nil {
		tb.Fatalf("reading the operator's claims: %v", err)
	}
	resolver := &server.MemAccResolver{}
	store := func(key string, jetStream bool) {
		c := jwt.NewAccountClaims(key)
		if jetStream {
			c.Limits.JetStreamLimits = jwt.JetStreamLimits{
				MemoryStorage: jwt.NoLimit, DiskStorage: jwt.NoLimit, Streams: jwt.NoLimit, Consumer: jwt.NoLimit,
			}
		}
		if err := resolver.Store(key, encodeClaims(tb, c, operator)); err != nil {
			tb.Fatalf("storing an account: %v", err)
		}
	}
	store(accountKey, true)
	store(systemKey, false)
	return &OperatorNATS{
		account: account,
		NATS: StartNATS(tb, func(o *server.Options) {
			o.TrustedOperators = []*jwt.OperatorClaims{trusted}
			o.AccountResolver = resolver
			o.SystemAccount = systemKey
		}),
	}
}

// Credentials writes a file with the JWT and the seed of a new user, who may
// publish to and subscribe to the given subjects, for as long as lifetime; zero
// is for ever. The file is replaced if it exists.
func (n *OperatorNATS) Credentials(tb testing.TB, file string, publish, subscribe []string, lifetime time.Duration) {
	tb.Helper()
	user, key := keyPair(tb, nkeys.CreateUser)
	c := jwt.NewUserClaims(key)
	c.Pub.Allow.Add(publish...)
	c.Sub.Allow.Add(subscribe...)
	if lifetime > 0 {
		c.Expires = time.Now().Add(lifetime).Unix()
	}
	seed, err := user.Seed()
	if err != nil {
		tb.Fatalf("reading a user's seed: %v", err)
	}
	content, err := jwt.FormatUserConfig(encodeClaims(tb, c, n.account), seed)
	if err != nil {
		tb.Fatalf("formatting credentials: %v", err)
	}
	fresh := filepath.Join(filepath.Dir(file), ".fresh")
	if err := os.WriteFile(fresh, content, 0o600); err != nil {
		tb.Fatalf("writing credentials: %v", err)
	}
	if err := os.Rename(fresh, file); err != nil {
		tb.Fatalf("replacing credentials: %v", err)
	}
}

func keyPair(tb testing.TB, create func() (nkeys.KeyPair, error)) (pair nkeys.KeyPair, public string) {
	tb.Helper()
	pair, err := create()
	if err == nil {
		public, err = pair.PublicKey()
	}
	if err != nil {
		tb.Fatalf("making a key: %v", err)
	}
	return pair, public
}

func encodeClaims(tb testing.TB, c jwt.Claims, by nkeys.KeyPair) string {
	tb.Helper()
	text, err := c.Encode(by)
	if err != nil {
		tb.Fatalf("signing claims: %v", err)
	}
	return text
}
