// Package streams ends requests in flight whose token is revoked: WebSockets,
// server-sent events, long polls, downloads and uploads.
//
// A [Registry] knows the requests that are open, each by the identity of its
// token. It is told of each revocation and finds the requests that it names by a
// look-up of its fingerprint, as the denylist finds revocations by that of a
// token. Whether a request that was found must end is for the denylist to say: a
// cutoff does not name newer tokens, and what was revoked may have been restored
// meanwhile.
//
// Register, then check: a caller opens a stream first and asks the denylist
// afterwards. A revocation is in force before the registry is told of it, so that
// either the question or the registry finds it.
//
// Most requests are over before anything is revoked, and cost two changes of a
// short list: what is needed to find a stream is computed by the registry's one
// goroutine, when the stream is a moment old or the next revocation comes,
// whichever is earlier. No stream has a goroutine or a timer.
package streams
