package oauth

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
)

// MaxPatchedMetadata bounds the documents that a [MetadataPatch] changes, in
// bytes. Larger ones pass as they are.
const MaxPatchedMetadata = 1 << 20

// MetadataPatchOptions configure a [MetadataPatch].
type MetadataPatchOptions struct {
	// Issuer returns the name of the trusted issuer that a document's issuer is,
	// which may be another spelling of it, and false if there is none: the
	// document is then left alone. Required.
	Issuer func(issuer string) (name string, known bool)
	// RevocationEndpoint and IntrospectionEndpoint are public URLs, as
	// [ValidateEndpointURL] wants them, one of which may be empty: what the
	// document says of that endpoint stays.
	RevocationEndpoint    string
	IntrospectionEndpoint string
	// RevocationUpstream says that the authorization server authenticates the
	// clients of the revocation endpoint, which only passes their requests on.
	// What its document says of the methods then stays.
	RevocationUpstream bool
	// Clients says how clients authenticate at endpoints of our own. Required
	// unless there is none.
	Clients MethodLister
	// Logger may be nil.
	Logger *slog.Logger
}

// MetadataPatch puts the addresses of our endpoints into the metadata that an
// authorization server publishes itself (RFC 8414; OpenID Connect Discovery). A
// MetadataPatch is safe for concurrent use.
type MetadataPatch struct {
	options MetadataPatchOptions
	logged  atomic.Int64 // when a document was left alone, in Unix nanoseconds
}

// NewMetadataPatch checks the options. The error says what to write instead.
func NewMetadataPatch(o MetadataPatchOptions) (*MetadataPatch, error) {
	switch {
	case o.Issuer == nil:
		return nil, errors.New("making metadata patch: the issuers are missing")
	case o.RevocationEndpoint == "" && o.IntrospectionEndpoint == "":
		return nil, errors.New("there is nothing to patch: revocation_endpoint and introspection_endpoint are missing")
	case o.RevocationUpstream && o.RevocationEndpoint == "":
		return nil, errors.New("the revocation endpoint is said to be that of the authorization server, and has no address")
	case o.Clients == nil && (o.IntrospectionEndpoint != "" || !o.RevocationUpstream):
		return nil, errors.New("making metadata patch: the clients are missing")
	}
	for _, e := range []struct{ kind, url string }{
		{"revocation", o.RevocationEndpoint}, {"introspection", o.IntrospectionEndpoint},
	} {
		if e.url == "" {
			continue
		}
		if err := validateEndpointURL(e.kind, e.url); err != nil {
			return nil, err
		}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &MetadataPatch{options: o}, nil
}

// Why a document is left alone.
var (
	errTwoIssuers = errors.New("its issuer is given twice")
	errNoIssuer   = errors.New("it names no issuer")
)

// Apply returns document with our endpoints in it; where the authorization server
// had written an endpoint of its own, ours stands in its place. All other members
// stay as they are, to the byte and in their order, but for signed_metadata, whose
// claims would take precedence (RFC 8414, section 2.1), and for what else would
// contradict ours. The error says why the document has to be left alone; it does
// not hold the document.
func (p *MetadataPatch) Apply(document []byte) ([]byte, error) {
	members, err := splitObject(document)
	if err != nil {
		return nil, err
	}
	name := ""
	for i, m := range members {
		if m.name != memberIssuer {
			continue
		}
		if name != "" {
			// Whose document this is depends on the reader.
			return nil, errTwoIssuers
		}
		if name, _ = members[i].textValue(); name == "" {
			return nil, errNoIssuer
		}
	}
	if name == "" {
		return nil, errNoIssuer
	}
	issuer, known := p.options.Issuer(name)
	if !known {
		return nil, fmt.Errorf("it is that of the issuer %q, which is not configured", cut(name, maxLoggedIssuer))
	}
	set, drop := p.changes(issuer)
	members = slices.DeleteFunc(members, func(m jsonMember) bool { return slices.Contains(drop, m.name) })
	for i := range members {
		if members[i].name == memberAliases {
			members[i] = p.withoutAliases(members[i])
		}
	}
	members = slices.DeleteFunc(members, func(m jsonMember) bool { return len(m.text) == 0 })
	return joinObject(setMembers(members, set)), nil
}

// maxLoggedIssuer is how much of an unknown issuer's name is told, in bytes.
const maxLoggedIssuer = 256

// changes returns the members that are ours, and the names of those that would
// contradict them.
func (p *MetadataPatch) changes(issuer string) (set []jsonMember, drop []string) {
	drop = []string{memberSigned}
	var methods []AuthMethod
	var algorithms []string
	if p.options.Clients != nil {
		methods, algorithms = p.options.Clients.AuthMethods(issuer)
	}
	if p.options.RevocationEndpoint != "" {
		set = append(set, newMember(memberEndpoint, p.options.RevocationEndpoint))
		if !p.options.RevocationUpstream {
			set = append(set, newMember(memberMethods, listed(methods)))
			if signsAssertions(methods) {
				set = append(set, newMember(memberAlgorithms, listed(algorithms)))
			} else {
				drop = append(drop, memberAlgorithms)
			}
		}
	}
	if p.options.IntrospectionEndpoint != "" {
		set = append(set, introspectionMembers(p.options.IntrospectionEndpoint, methods, algorithms)...)
		drop = append(drop, introspectionDropped...)
	}
	return set, slices.DeleteFunc(drop, func(name string) bool {
		_, ours := findMember(set, name)
		return ours
	})
}

// withoutAliases takes the authorization server's own endpoints out of the
// addresses for clients with certificates (RFC 8705, section 5): they would
// prefer them to ours, and no edge would learn of what they revoke there. What is
// left of it has no text if that was all.
func (p *MetadataPatch) withoutAliases(m jsonMember) jsonMember {
	aliases, err := splitObject(m.value)
	if err != nil {
		return m // not an object: no client can use it
	}
	count := len(aliases)
	aliases = slices.DeleteFunc(aliases, func(a jsonMember) bool {
		return a.name == memberEndpoint && p.options.RevocationEndpoint != "" ||
			a.name == memberIntrospection && p.options.IntrospectionEndpoint != ""
	})
	switch len(aliases) {
	case count:
		return m
	case 0:
		return jsonMember{name: m.name}
	}
	value := joinObject(aliases)
	return jsonMember{name: m.name, text: append([]byte(`"`+memberAliases+`":`), value...), value: value}
}
