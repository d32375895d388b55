//go:build e2e

package e2e

import (
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"maps"
	"math/big"
	"strings"
	"testing"
)

// parts splits a JWT into header, claims and signature as they stand.
func parts(t testing.TB, token string) [3]string {
	t.Helper()
	p := strings.Split(token, ".")
	if len(p) != 3 {
		t.Fatalf("a JWT with %d parts", len(p))
	}
	return [3]string(p)
}

// claims reads the claims of a JWT.
func claims(t testing.TB, token string) map[string]any {
	t.Helper()
	var c map[string]any
	if err := json.Unmarshal(decode(t, parts(t, token)[1]), &c); err != nil {
		t.Fatalf("decoding claims: %v", err)
	}
	return c
}

// claim returns a claim that is a string.
func claim(t testing.TB, token, name string) string {
	t.Helper()
	value, ok := claims(t, token)[name].(string)
	if !ok || value == "" {
		t.Fatalf("the token has no %s", name)
	}
	return value
}

// headerOf returns a member of a JWT's header that is a string.
func headerOf(t testing.TB, token, name string) string {
	t.Helper()
	var header map[string]any
	if err := json.Unmarshal(decode(t, parts(t, token)[0]), &header); err != nil {
		t.Fatalf("decoding a header: %v", err)
	}
	value, _ := header[name].(string)
	return value
}

func decode(t testing.TB, part string) []byte {
	t.Helper()
	content, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		t.Fatalf("decoding a part of a JWT: %v", err)
	}
	return content
}

func encode(content []byte) string { return base64.RawURLEncoding.EncodeToString(content) }

const base64url = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// tailSpellings returns all the strings that a decoder which ignores the spare
// bits of the last character takes for the same bytes as part, part included.
func tailSpellings(part string) []string {
	var spare int // bits
	switch len(part) % 4 {
	case 2:
		spare = 4
	case 3:
		spare = 2
	default:
		return []string{part}
	}
	last := strings.IndexByte(base64url, part[len(part)-1])
	first := last &^ (1<<spare - 1)
	var spellings []string
	for i := range 1 << spare {
		spellings = append(spellings, part[:len(part)-1]+string(base64url[first+i]))
	}
	return spellings
}

// respellings returns, by name, strings that some decoder takes for the same
// token although they are not equal to it. They can be sent in a header: line
// breaks can't.
func respellings(t testing.TB, token string) map[string][]string {
	t.Helper()
	p := parts(t, token)
	result := map[string][]string{}
	for i, name := range []string{"header", "claims", "signature"} {
		for _, spelling := range tailSpellings(p[i]) {
			if spelling != p[i] {
				q := p
				q[i] = spelling
				result["spare bits of the "+name] = append(result["spare bits of the "+name], strings.Join(q[:], "."))
			}
		}
		padded := p
		padded[i] += strings.Repeat("=", (4-len(p[i])%4)%4)
		if padded != p {
			result["padding"] = append(result["padding"], strings.Join(padded[:], "."))
		}
		standard := p
		standard[i] = strings.NewReplacer("-", "+", "_", "/").Replace(p[i])
		if standard != p {
			result["the standard alphabet"] = append(result["the standard alphabet"], strings.Join(standard[:], "."))
		}
		for _, extra := range []string{"%0A", "%0D", "\t", " ", "%3D"} {
			broken := p
			broken[i] = p[i][:len(p[i])/2] + extra + p[i][len(p[i])/2:]
			result["characters in between"] = append(result["characters in between"], strings.Join(broken[:], "."))
		}
	}
	return result
}

// twin returns the ES256 token whose signature (r, n-s) verifies as (r, s) does.
func twin(t testing.TB, token string) string {
	t.Helper()
	p := parts(t, token)
	signature := decode(t, p[2])
	if len(signature) != 64 {
		t.Fatalf("an ES256 signature of %d bytes", len(signature))
	}
	s := new(big.Int).SetBytes(signature[32:])
	s.Sub(elliptic.P256().Params().N, s).FillBytes(signature[32:])
	p[2] = encode(signature)
	return strings.Join(p[:], ".")
}

// forge returns token with claims changed and the signature kept.
func forge(t testing.TB, token string, changes map[string]any) string {
	t.Helper()
	p := parts(t, token)
	c := claims(t, token)
	for name, value := range changes {
		if value == nil {
			delete(c, name)
		} else {
			c[name] = value
		}
	}
	content, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	p[1] = encode(content)
	return strings.Join(p[:], ".")
}

// reheaded returns token with members of its header changed, and the given
// signature.
func reheaded(t testing.TB, token string, changes map[string]any, signature string) string {
	t.Helper()
	p := parts(t, token)
	var header map[string]any
	if err := json.Unmarshal(decode(t, p[0]), &header); err != nil {
		t.Fatal(err)
	}
	maps.Copy(header, changes)
	content, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	return encode(content) + "." + p[1] + "." + signature
}
