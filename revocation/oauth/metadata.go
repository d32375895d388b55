package oauth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// MethodLister is a [ClientStore] that knows how its clients authenticate.
// StaticClients is one.
type MethodLister interface {
	// AuthMethods returns the methods that at least one client of the issuer may
	// use at present, and the algorithms of the assertions among them.
	AuthMethods(issuer string) (methods []AuthMethod, algorithms []string)
}

// AuthMethods implements [MethodLister].
func (s *StaticClients) AuthMethods(issuer string) (methods []AuthMethod, algorithms []string) {
	for c := range s.All() {
		if c.Issuer != issuer {
			continue
		}
		methods = append(methods, c.Methods...)
		if c.Keys != nil && (c.allows(AuthPrivateKeyJWT) || c.allows(AuthSecretJWT)) {
			algorithms = append(algorithms, c.Keys.Algorithms()...)
		}
	}
	slices.Sort(methods)
	slices.Sort(algorithms)
	return slices.Compact(methods), slices.Compact(algorithms)
}

// metadataMaxAge is for how long a document may be cached, in seconds. A client
// that is added with a new method waits for no longer.
const metadataMaxAge = 300

// MaxMetadataSize bounds the members that are taken from the authorization
// server's own document, in bytes.
const MaxMetadataSize = 256 << 10

// Members of a metadata document that this package writes (RFC 8414, section 2).
const (
	memberIssuer     = "issuer"
	memberEndpoint   = "revocation_endpoint"
	memberMethods    = "revocation_endpoint_auth_methods_supported"
	memberAlgorithms = "revocation_endpoint_auth_signing_alg_values_supported"
	memberAliases    = "mtls_endpoint_aliases" // RFC 8705, section 5
	memberSigned     = "signed_metadata"

	memberIntrospection           = "introspection_endpoint"
	memberIntrospectionMethods    = "introspection_endpoint_auth_methods_supported"
	memberIntrospectionAlgorithms = "introspection_endpoint_auth_signing_alg_values_supported"
)

// introspectionDropped are the members of other introspection endpoints that are
// not, or not always, written for ours: it answers in plain JSON whatever is asked
// for (RFC 9701, section 7).
var introspectionDropped = []string{
	memberIntrospectionAlgorithms,
	"introspection_signing_alg_values_supported",
	"introspection_encryption_alg_values_supported",
	"introspection_encryption_enc_values_supported",
}

// MetadataOptions configure a [Metadata].
type MetadataOptions struct {
	// Issuer is the issuer that the document describes.
	Issuer string
	// Endpoint is the public URL of the revocation endpoint: absolute, https,
	// without a fragment (RFC 6749, section 3.2; RFC 7009, section 2).
	Endpoint string
	// Introspection is that of the introspection endpoint; empty means that there
	// is none.
	Introspection string
	// Clients says how clients authenticate at the endpoints.
	Clients MethodLister
	// Base is the authorization server's own document, a JSON object. Its members
	// are served as they are, but for those that this package writes, and for
	// signed_metadata and the revocation_endpoint in mtls_endpoint_aliases, which
	// would contradict them. Nil means that there is none.
	Base []byte
}

// Metadata serves an authorization server's metadata (RFC 8414) with a revocation
// endpoint, and an introspection endpoint if there is one. It says only what is known here: without a base, the document has
// the issuer and the endpoint, and leaves out what RFC 8414 requires of an
// authorization server itself (see [Metadata.Missing]); nothing is made up. A
// Metadata is safe for concurrent use.
type Metadata struct {
	options MetadataOptions
	base    map[string]json.RawMessage
}

// NewMetadata checks the options. The error says what to write instead.
func NewMetadata(o MetadataOptions) (*Metadata, error) {
	if o.Issuer == "" || o.Clients == nil {
		return nil, errors.New("making metadata: the issuer or the clients are missing")
	}
	if err := ValidateEndpointURL(o.Endpoint); err != nil {
		return nil, err
	}
	if o.Introspection != "" {
		if err := ValidateIntrospectionURL(o.Introspection); err != nil {
			return nil, err
		}
	}
	m := &Metadata{options: o, base: make(map[string]json.RawMessage)}
	if o.Base == nil {
		return m, nil
	}
	if err := m.readBase(); err != nil {
		return nil, fmt.Errorf("reading the authorization server's metadata: %w", err)
	}
	return m, nil
}

// ValidateEndpointURL reports why an address must not be published as that of a
// revocation endpoint (RFC 7009, section 2).
func ValidateEndpointURL(text string) error { return validateEndpointURL("revocation", text) }

// ValidateIntrospectionURL reports the same of an introspection endpoint (RFC
// 7662, section 2).
func ValidateIntrospectionURL(text string) error { return validateEndpointURL("introspection", text) }

func validateEndpointURL(kind, text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.User != nil:
		return fmt.Errorf("the %s endpoint %q is not an absolute URL: write https://host/path", kind, text)
	case u.Scheme != "https":
		return fmt.Errorf("the %s endpoint %q is not https: secrets are sent to it, so no other address is published (RFC 7009, section 2)", kind, text)
	case strings.Contains(text, "#"):
		return fmt.Errorf("the %s endpoint %q has a fragment (RFC 6749, section 3.2)", kind, text)
	}
	return nil
}

func (m *Metadata) readBase() error {
	if len(m.options.Base) > MaxMetadataSize {
		return fmt.Errorf("it is larger than %d bytes", MaxMetadataSize)
	}
	d := json.NewDecoder(bytes.NewReader(m.options.Base))
	if err := d.Decode(&m.base); err != nil || m.base == nil {
		return errors.New("it is not a JSON object")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is something after its JSON object")
	}
	if raw, ok := m.base[memberIssuer]; ok {
		var issuer string
		// Clients compare it with the address they asked (RFC 8414, section 3.3).
		if json.Unmarshal(raw, &issuer) != nil || issuer != m.options.Issuer {
			return fmt.Errorf("it is that of the issuer %s, not of %q", raw, m.options.Issuer)
		}
	}
	for _, name := range []string{memberIssuer, memberEndpoint, memberMethods, memberAlgorithms, memberSigned} {
		delete(m.base, name)
	}
	if m.options.Introspection != "" {
		delete(m.base, memberIntrospection)
		delete(m.base, memberIntrospectionMethods)
		for _, name := range introspectionDropped {
			delete(m.base, name)
		}
	}
	return m.readAliases()
}

// readAliases takes the authorization server's own endpoints out of the addresses
// for clients with certificates: they would prefer them to these.
func (m *Metadata) readAliases() error {
	raw, ok := m.base[memberAliases]
	if !ok {
		return nil
	}
	var aliases map[string]json.RawMessage
	if json.Unmarshal(raw, &aliases) != nil {
		return errors.New(memberAliases + " is not a JSON object")
	}
	delete(aliases, memberEndpoint)
	if m.options.Introspection != "" {
		delete(aliases, memberIntrospection)
	}
	if len(aliases) == 0 {
		delete(m.base, memberAliases)
		return nil
	}
	text, err := json.Marshal(aliases)
	m.base[memberAliases] = text
	return err
}

// Missing returns the members that RFC 8414, section 2, requires of every
// authorization server, as far as the document lacks them.
func (m *Metadata) Missing() []string {
	var missing []string
	for _, name := range []string{"authorization_endpoint", "token_endpoint", "response_types_supported"} {
		if _, ok := m.base[name]; !ok {
			missing = append(missing, name)
		}
	}
	return missing
}

// Document returns the document as of now.
func (m *Metadata) Document() ([]byte, error) {
	doc := make(map[string]any, len(m.base)+4)
	for name, value := range m.base {
		doc[name] = value
	}
	methods, algorithms := m.options.Clients.AuthMethods(m.options.Issuer)
	maps.Copy(doc, map[string]any{
		memberIssuer: m.options.Issuer, memberEndpoint: m.options.Endpoint, memberMethods: listed(methods),
	})
	if signsAssertions(methods) {
		doc[memberAlgorithms] = listed(algorithms)
	}
	if m.options.Introspection != "" {
		for _, member := range introspectionMembers(m.options.Introspection, methods, algorithms) {
			doc[member.name] = json.RawMessage(member.value)
		}
	}
	return json.Marshal(doc)
}

// introspectionMembers are what is written of an introspection endpoint whose
// issuer's clients have these methods. Public ones can't use it.
func introspectionMembers(endpoint string, methods []AuthMethod, algorithms []string) []jsonMember {
	methods = slices.DeleteFunc(slices.Clone(methods), func(m AuthMethod) bool { return m == AuthNone })
	members := []jsonMember{newMember(memberIntrospection, endpoint), newMember(memberIntrospectionMethods, listed(methods))}
	if signsAssertions(methods) {
		members = append(members, newMember(memberIntrospectionAlgorithms, listed(algorithms)))
	}
	return members
}

// listed makes an empty list of none: left out, the methods would be understood
// as client_secret_basic (RFC 8414, section 2).
func listed[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// signsAssertions tells whether there are methods for which the algorithms have
// to be published.
func signsAssertions(methods []AuthMethod) bool {
	return slices.Contains(methods, AuthPrivateKeyJWT) || slices.Contains(methods, AuthSecretJWT)
}

// ServeHTTP answers GET and HEAD.
func (m *Metadata) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	body, err := m.Document()
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	// Public, and asked for by scripts of any origin (RFC 9700, section 2.6).
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Cache-Control", "public, max-age="+strconv.Itoa(metadataMaxAge))
	writeJSON(w, http.StatusOK, body)
}
