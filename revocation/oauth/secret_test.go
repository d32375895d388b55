package oauth

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// argonPHC hashes secret with small parameters.
func argonPHC(secret string) string {
	salt := []byte("0123456789abcdef")
	hash := argon2.IDKey([]byte(secret), salt, 1, 64, 1, 32)
	b64 := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=19$m=64,t=1,p=1$%s$%s", b64(salt), b64(hash))
}

func bcryptHash(t testing.TB, secret string) string {
	t.Helper()
	h, err := bcrypt.GenerateFromPassword([]byte(secret), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(h)
}

func TestSecretOfEachKindMatchesOnlyItself(t *testing.T) {
	const secret = "Zk9w-TXlHc:W1v U2Vj+cmV0%"
	sum := sha256.Sum256([]byte(secret))
	bcrypted := bcryptHash(t, secret)
	kinds := map[string]struct {
		encoded string
		kind    string
		slow    bool
	}{
		"bcrypt 2a":                {bcrypted, "bcrypt", true},
		"bcrypt 2b":                {"$2b$" + bcrypted[4:], "bcrypt", true},
		"bcrypt 2y":                {"$2y$" + bcrypted[4:], "bcrypt", true},
		"argon2id":                 {argonPHC(secret), "argon2id", true},
		"digest, hexadecimal":      {"sha256:" + hex.EncodeToString(sum[:]), "sha256", false},
		"digest, capitals":         {"sha256:" + strings.ToUpper(hex.EncodeToString(sum[:])), "sha256", false},
		"digest, base64url":        {"sha256:" + base64.RawURLEncoding.EncodeToString(sum[:]), "sha256", false},
		"digest, padded base64url": {"sha256:" + base64.URLEncoding.EncodeToString(sum[:]), "sha256", false},
		"clear":                    {"", "clear", false},
	}
	for name, k := range kinds {
		t.Run(name, func(t *testing.T) {
			s, err := ParseSecret(k.encoded)
			if k.encoded == "" {
				s, err = ClearSecret(secret)
			}
			if err != nil {
				t.Fatal(err)
			}
			if s.String() != k.kind || s.slow() != k.slow {
				t.Errorf("kind %q, slow %v", s, s.slow())
			}
			if !s.verify(secret) {
				t.Error("the secret does not match")
			}
			for _, wrong := range []string{"", secret + "x", secret[1:], strings.ToUpper(secret), k.encoded} {
				if s.verify(wrong) {
					t.Errorf("%q matches", wrong)
				}
			}
			if k.encoded != "" && !IsHashed(k.encoded) {
				t.Error("not recognized as a hash")
			}
		})
	}
	if (Secret{}).verify("") {
		t.Error("the zero secret matches")
	}
}

func TestParseSecretRefusesWithoutQuotingTheSecret(t *testing.T) {
	bcrypted := bcryptHash(t, "x")
	argon := argonPHC("x")
	digest := sha256.Sum256([]byte("password"))
	tests := []struct {
		name string
		s    string
		says string
	}{
		{"empty", "", "placeholder"},
		{"clear", "hunter2hunter2", "placeholder"},
		{"another hash", "$1$abc$def", "placeholder"},
		{"bcrypt cut off", bcrypted[:59], "60 characters"},
		{"bcrypt with more", bcrypted + "x", "60 characters"},
		{"bcrypt version x", "$2x$" + bcrypted[4:], "versions"},
		{"bcrypt without a cost", "$2a$xx" + bcrypted[6:], "cost"},
		{"bcrypt that costs minutes", "$2a$16" + bcrypted[6:], "too long"},
		{"bcrypt with a foreign character", bcrypted[:20] + "!" + bcrypted[21:], "character"},
		{"argon2i", strings.Replace(argon, "argon2id", "argon2i", 1), "look like"},
		{"argon2d", strings.Replace(argon, "argon2id", "argon2d", 1), "look like"},
		{"argon2id cut off", argon[:strings.LastIndex(argon, "$")], "look like"},
		{"argon2id of an old version", strings.Replace(argon, "v=19", "v=16", 1), "version"},
		{"argon2id that takes a terabyte", strings.Replace(argon, "m=64", "m=999999999", 1), "m is not"},
		{"argon2id with too little memory", strings.Replace(argon, "m=64", "m=7", 1), "m is not"},
		{"argon2id that takes minutes", strings.Replace(argon, "m=64,t=1", "m=262144,t=60", 1), "m times t"},
		{"argon2id with too many passes", strings.Replace(argon, "t=1", "t=65", 1), "t is not"},
		{"argon2id without a pass", strings.Replace(argon, "t=1", "t=0", 1), "whole numbers"},
		{"argon2id with too many threads", strings.Replace(argon, "p=1", "p=256", 1), "p is not"},
		{"argon2id with a sign", strings.Replace(argon, "t=1", "t=+1", 1), "whole numbers"},
		{"argon2id in another order", strings.Replace(argon, "m=64,t=1", "t=1,m=64", 1), "in this order"},
		{"argon2id with a key id", strings.Replace(argon, "p=1", "p=1,keyid=x", 1), "parameters"},
		{"argon2id with a short salt", strings.Replace(argon, "$MDEyMzQ1Njc4OWFiY2RlZg$", "$MDEy$", 1), "salt"},
		{"argon2id with a padded salt", strings.Replace(argon, "$MDEyMzQ1Njc4OWFiY2RlZg$", "$MDEyMzQ1Njc4OWFiY2RlZg==$", 1), "salt"},
		{"argon2id with a line break", argon + "\n", "hash is"},
		{"argon2id with a short hash", argon[:strings.LastIndex(argon, "$")] + "$MDEy", "hash is"},
		{"digest cut off", "sha256:abcdef", "32 bytes"},
		{"digest of nothing", "sha256:", "32 bytes"},
		{"digest in standard base64", "sha256:" + strings.Repeat("+", 43), "32 bytes"},
		{"digest with a line break", "sha256:" + strings.Repeat("A", 43) + "\n", "32 bytes"},
		{"digest of a common word", "sha256:" + hex.EncodeToString(digest[:]), "common word"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseSecret(tt.s)
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("error %v, want one with %q", err, tt.says)
			}
			if tail := strings.TrimPrefix(tt.s, sha256Prefix); len(tail) > 5 && strings.Contains(err.Error(), tail) {
				t.Errorf("the error quotes the secret: %v", err)
			}
			if unknown := tt.says == "placeholder"; errors.Is(err, ErrNotHashed) != unknown {
				t.Errorf("wraps ErrNotHashed: %v, want %v", !unknown, unknown)
			}
		})
	}
}

func TestClearSecretRefusesAnEmptyOrEndlessOne(t *testing.T) {
	for _, s := range []string{"", strings.Repeat("x", maxSecret+1)} {
		if _, err := ClearSecret(s); err == nil {
			t.Errorf("%d bytes are accepted", len(s))
		}
	}
}

func TestSecretPrintsNothingButItsKind(t *testing.T) {
	s := clearSecret(t, "the-secret")
	d := sha256.Sum256([]byte("the-secret"))
	leaks := []string{"the-secret", hex.EncodeToString(d[:4]), strings.Trim(fmt.Sprint(d[:4]), "[]")}

	var b syncBuffer
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "secret", s)
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "client", Client{ID: "x", Secrets: []Secret{s}})
	marshaled, err := json.Marshal(map[string]any{"s": s})
	if err != nil {
		t.Fatal(err)
	}
	outputs := []string{b.String(), string(marshaled)}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		outputs = append(outputs, fmt.Sprintf(verb, s), fmt.Sprintf(verb, Client{Secrets: []Secret{s}}))
	}
	for _, out := range outputs {
		for _, leak := range leaks {
			if strings.Contains(strings.ToLower(out), leak) {
				t.Errorf("printed as %s", out)
			}
		}
	}
}

// FuzzParseSecret checks that no text panics, is quoted, or is accepted with
// parameters out of bounds.
func FuzzParseSecret(f *testing.F) {
	f.Add(argonPHC("x"))
	f.Add("$2a$10$rBfBzofu1oW/p3ssfNEXXe.r05P6L0ykKSWt7SvjtcHq2Iir0Ahiq")
	f.Add("sha256:" + strings.Repeat("0", 64))
	f.Add("$argon2id$v=19$m=8,t=1,p=1$AAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA")
	f.Add("$argon2id$$$$")
	f.Fuzz(func(t *testing.T, s string) {
		secret, err := ParseSecret(s)
		if err != nil {
			if secret.verifier != nil {
				t.Fatal("a secret together with an error")
			}
			if len(s) > 24 && strings.Contains(err.Error(), s) {
				t.Fatalf("the error quotes it: %v", err)
			}
			return
		}
		switch v := secret.verifier.(type) {
		case *argonSecret:
			if v.memory > maxArgonMemory || uint64(v.memory)*uint64(v.time) > maxArgonWork || v.memory < 8*uint32(v.threads) ||
				v.threads == 0 || v.time == 0 || len(v.salt) < minArgonSalt || len(v.hash) < minArgonHash {
				t.Fatalf("out of bounds: %+v", v)
			}
			if v.memory <= 64 && v.time == 1 {
				secret.verify("x") // must not panic
			}
		case bcryptSecret:
			cost, err := bcrypt.Cost([]byte(v))
			if err != nil || cost > maxBcryptCost {
				t.Fatalf("out of bounds: cost %d, %v", cost, err)
			}
			if cost == bcrypt.MinCost {
				secret.verify("x")
			}
		case digestSecret:
		default:
			t.Fatalf("a %T", v)
		}
	})
}
