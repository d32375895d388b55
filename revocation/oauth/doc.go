// Package oauth speaks OAuth over HTTP: the revocation endpoint of RFC 7009 with
// client authentication after RFC 6749, section 2.3, policies that have a say in a
// revocation, and an authorization server's metadata (RFC 8414); and, for
// protected resources, the extraction of a presented token (RFC 6750, RFC 9449)
// and the challenge that refuses it (RFC 6750, RFC 9728).
//
// The package knows neither how tokens are verified nor how a revocation becomes
// durable; [TokenResolver] and [Revoker] stand for them. Client assertions are
// verified with keys of the package issuer. It starts no goroutine.
package oauth
