// Package revocation is the vocabulary of token revocation: which tokens a
// decision names ([Criteria]), how a token is described so that it can be
// compared with such decisions ([Identity]), what is compared ([Fingerprint]),
// the decision itself ([Revocation]), and the [Service] that makes one durable
// before anyone is told that it was made.
//
// The package knows neither Caddy nor NATS nor ristretto. The packages below it
// do: denylist holds decisions in memory, ledger makes them durable, issuer
// turns tokens into identities, oauth speaks HTTP.
package revocation
