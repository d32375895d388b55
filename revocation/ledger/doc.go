// Package ledger makes revocations durable and brings them to every edge: an
// append-only log in a NATS JetStream stream, either on a server embedded in
// this process ([EmbeddedOptions]) or on an external one ([ExternalOptions]).
//
// # Publishing
//
// [Ledger.PublishRevocation] returns without error only after the server has
// acknowledged that the entry is stored. Every other outcome is an error that
// wraps [revocation.ErrUnavailable] or [revocation.ErrFull] and means "not
// revoked". Attempts carry the decision's id as the NATS message id, so that
// retries are stored once. [Ledger.PublishRevocations] stores many in one
// message; [Follower.Stands] tells when nothing needs to be stored.
//
// # Following
//
// A [Follower] brings what is in the stream to a [Sink], in order and without
// gaps, from the sink's position on. Each of its sessions first makes sure that
// the stream still has the history which that position belongs to: a stream
// that was deleted and created again, emptied, or rolled back to a backup
// raises an alarm and is read again from its beginning, while what is held
// stays held. [Follower.Reseed] writes it to a ledger that lost it, by the
// operator's word.
//
// # Freshness
//
// Whether an edge is in sync is proven by heartbeat entries that come through
// the stream itself, like every revocation before them. Neither an open
// connection nor an answer of the JetStream API proves anything: on a server
// that is cut off from its cluster, both go on working. See [State].
//
// # Entries
//
// A message is one JSON object, in UTF-8, of at most [MaxPayload] bytes. Names
// are compared exactly, a name that occurs twice is an error, members that are
// not listed here are ignored. Any trusted program may publish entries; an
// entry that breaks these rules is counted, logged and not applied.
//
//	subject                          members
//	token_revocation.v1.entry        v, issuer, criteria, expires; optional:
//	                                 issued_before or authenticated_before,
//	                                 id, reason, actor, decided_at
//	                             or  v, entries; optional: id, reason, actor,
//	                                 decided_at
//	token_revocation.v1.restore      v, issuer, criteria, expires; optional:
//	                                 id, reason, actor, decided_at
//	                             or  v, entry; optional: id, reason, actor,
//	                                 decided_at
//	token_revocation.v1.recheck      v, issuer; optional: id, reason, actor,
//	                                 decided_at
//	token_revocation.v1.heartbeat    v; optional: edge, id, at
//	token_revocation.v1.assertion.*  the same
//	token_revocation.v1.genesis      v, ledger; optional: at
//
//	v                     integer, 1. An edge that meets a higher version
//	                      reports itself incomplete instead of skipping it
//	issuer                string, the exact iss of the tokens
//	criteria              object of strings: claim name to value, ANDed. An
//	                      empty object names every token of the issuer
//	issued_before         integer, Unix seconds: only tokens issued up to then
//	authenticated_before  integer, Unix seconds: only tokens whose user
//	                      authenticated up to then. With neither of the two,
//	                      every matching token is denied until the end
//	expires               integer, Unix seconds: when the entry ends
//	entries               array of entries without v, at least one: all of
//	                      them are applied, or none. Each may have, instead of
//	                      issuer and criteria, their fingerprint (32 lower-case
//	                      hexadecimal digits), the mode (block, issued_before,
//	                      authenticated_before) and the sorted names of the
//	                      claims, as [Follower.Reseed] writes them
//	entry                 integer, a lower sequence: what is there can't be read
//	                      and does not matter
//	id                    string of 1 to 64 bytes, the decision's id. Absent:
//	                      the Nats-Msg-Id header, else the sequence
//	reason, actor         strings of at most 256 bytes, without secrets
//	decided_at            integer, Unix milliseconds
//	edge                  string, who beats
//	at                    integer, Unix milliseconds by the sender's clock
//	ledger                string, the ledger's id
//
// Times are integers without fraction or exponent. The message's Nats-TTL
// header must reach beyond expires, or be absent: an entry is enforced until
// expires, but an edge that starts later sees only what is still stored. Set
// Nats-Msg-Id to the decision's id, and Nats-Expected-Stream to the stream's
// name, so that a retry is stored once and a stray stream stores nothing. With
// the nats command line tool, to deny alice's tokens for an hour:
//
//	nats publish --jetstream token_revocation.v1.entry \
//	  -H Nats-Msg-Id:4f1c2a -H Nats-TTL:2h -H Nats-Expected-Stream:TOKEN_REVOCATIONS \
//	  '{"v":1,"id":"4f1c2a","issuer":"https://sso.example.com","criteria":{"sub":"alice"},"expires":'$(($(date +%s)+3600))'}'
package ledger
