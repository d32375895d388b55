package issuer

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// MintRequest describes an access token for trying things out. Every field is
// optional.
type MintRequest struct {
	Subject   string // sub; default "demo-user"
	ClientID  string // client_id; default "demo-app"
	SessionID string // sid; default none
	Audience  []string
	// Lifetime is exp − iat; default 5m, at most the issuer's max_token_lifetime.
	Lifetime time.Duration
	// Extra are further claims. They win over those above, but not over iss.
	Extra map[string]any
	// Algorithm is ES256 (the default), RS256 or EdDSA.
	Algorithm string
}

// ErrNotDevelopment says that an issuer cannot sign tokens.
var ErrNotDevelopment = errors.New("only a development issuer signs tokens")

// DefaultMintLifetime is how long a minted token lives.
const DefaultMintLifetime = 5 * time.Minute

// Mint signs an access token (RFC 9068) with the keys of a development issuer.
// The error wraps [ErrNotDevelopment] for any other issuer. Whoever may call it
// can be anyone towards everything that trusts the issuer: the caller lets only
// requests from this machine through.
func (i *Issuer) Mint(ctx context.Context, req MintRequest) (string, error) {
	if i.minter == nil {
		return "", ErrNotDevelopment
	}
	if req.Lifetime == 0 {
		req.Lifetime = DefaultMintLifetime
	}
	if req.Lifetime < time.Second || req.Lifetime > i.MaxTokenLifetime() {
		return "", fmt.Errorf("minting a token: the lifetime %s is not between 1s and %s", req.Lifetime, i.MaxTokenLifetime())
	}
	if req.Algorithm == "" {
		req.Algorithm = string(jose.ES256)
	}
	keys, err := i.minter.privateKeys(ctx)
	if err != nil {
		return "", fmt.Errorf("minting a token: %w", err)
	}
	for _, key := range keys {
		if key.Algorithm == req.Algorithm {
			return i.sign(key, i.mintClaims(req))
		}
	}
	return "", fmt.Errorf("minting a token: there is no key for %q: use ES256, RS256 or EdDSA", req.Algorithm)
}

func (i *Issuer) mintClaims(req MintRequest) map[string]any {
	now := i.now()
	claims := map[string]any{
		"iss":       DevelopmentIssuer,
		"sub":       orDefault(req.Subject, "demo-user"),
		"client_id": orDefault(req.ClientID, "demo-app"),
		"jti":       rand.Text(),
		"iat":       now.Unix(),
		"exp":       now.Add(req.Lifetime).Unix(),
	}
	if req.SessionID != "" {
		claims["sid"] = req.SessionID
	}
	if len(req.Audience) > 0 {
		claims["aud"] = req.Audience
	}
	maps.Copy(claims, req.Extra)
	claims["iss"] = DevelopmentIssuer // never in the name of another
	return claims
}

func (i *Issuer) sign(key jose.JSONWebKey, claims map[string]any) (string, error) {
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("minting a token: %w", err)
	}
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: jose.SignatureAlgorithm(key.Algorithm), Key: key},
		(&jose.SignerOptions{}).WithType("at+jwt"))
	if err != nil {
		return "", fmt.Errorf("minting a token: %w", err)
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("minting a token: %w", err)
	}
	token, err := jws.CompactSerialize()
	if err != nil {
		return "", fmt.Errorf("minting a token: %w", err)
	}
	return token, nil
}

func orDefault(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
