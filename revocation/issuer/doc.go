// Package issuer turns presented tokens into identities that can be trusted.
//
// A [Set] knows the issuers that an operator configured. It reads a token with
// a reader written for the purpose, finds the issuer that the token names,
// verifies the signature with that issuer's keys only, checks what RFC 9068 and
// RFC 8725 ask to be checked, and translates the issuer's claim names into the
// canonical ones of package revocation.
//
// Keys come from OpenID Connect Discovery or RFC 8414 metadata, from a JWK set at
// a URL or in a file, or from a shared secret. They are refreshed in the
// background, by one goroutine per issuer, and kept in a [Store] for the next
// start, so that a request never waits for a key server unless its caller asks
// to.
package issuer
