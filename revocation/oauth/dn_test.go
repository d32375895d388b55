package oauth

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"strings"
	"testing"
)

func subject(t testing.TB, sets ...[]pkix.AttributeTypeAndValue) []byte {
	t.Helper()
	var sequence pkix.RDNSequence
	for _, set := range sets {
		sequence = append(sequence, set)
	}
	der, err := asn1.Marshal(sequence)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func attribute(oid asn1.ObjectIdentifier, value any) pkix.AttributeTypeAndValue {
	return pkix.AttributeTypeAndValue{Type: oid, Value: value}
}

var (
	oidCN  = asn1.ObjectIdentifier{2, 5, 4, 3}
	oidO   = asn1.ObjectIdentifier{2, 5, 4, 10}
	oidC   = asn1.ObjectIdentifier{2, 5, 4, 6}
	oidUID = asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1}
)

func TestSubjectsAreComparedAsNames(t *testing.T) {
	type set = []pkix.AttributeTypeAndValue
	plain := subject(t, set{attribute(oidC, "DE")}, set{attribute(oidO, "Example, Inc.")}, set{attribute(oidCN, "app")})
	multi := subject(t, set{attribute(oidC, "DE")}, set{attribute(oidCN, "app"), attribute(oidUID, "42")})
	odd := subject(t, set{attribute(oidCN, " #a+b=\"ü\\<>;\x00 ")})
	number := subject(t, set{attribute(oidCN, 1)})
	for _, tt := range []struct {
		name    string
		text    string
		subject []byte
		want    bool
	}{
		{"as RFC 4514 has it", `CN=app,O=Example\, Inc.,C=DE`, plain, true},
		{"space around the separators", `CN = app, O = Example\, Inc. , C=DE`, plain, true},
		{"numbers and small letters", `2.5.4.3=app,o=Example\2c Inc.,OID.2.5.4.6=DE`, plain, true},
		{"semicolons, as of old", `CN=app;O=Example\, Inc.;C=DE`, plain, true},
		{"hexadecimal", `CN=#0c03617070,O=Example\, Inc.,C=DE`, plain, true},
		{"the order of openssl's oneline", `C=DE,O=Example\, Inc.,CN=app`, plain, false},
		{"a part of it", `CN=app,O=Example\, Inc.`, plain, false},
		{"one part more", `CN=x,CN=app,O=Example\, Inc.,C=DE`, plain, false},
		{"another case", `CN=App,O=Example\, Inc.,C=DE`, plain, false},
		{"another type", `OU=app,O=Example\, Inc.,C=DE`, plain, false},
		{"several in one part", `CN=app+UID=42,C=DE`, multi, true},
		{"several in one part, the other way round", `UID=42+CN=app,C=DE`, multi, true},
		{"several parts instead of one", `UID=42,CN=app,C=DE`, multi, false},
		{"everything escaped", `CN=\20#a\+b\=\"\C3\BC\\\<\>\;\00\20`, odd, true},
		{"a number in the certificate", `CN=1`, number, false},
		{"nothing in the certificate", `CN=app`, subject(t), false},
		{"no certificate at all", `CN=app`, []byte("nonsense"), false},
	} {
		name, err := parseDN(tt.text)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if got := name.matches(tt.subject); got != tt.want {
			t.Errorf("%s: %v, want %v (%v)", tt.name, got, tt.want, name)
		}
	}
}

func TestWhatIsNoNameIsRefused(t *testing.T) {
	for _, text := range []string{
		"", "app", "CN", "CN=", "=app", "CN=app,", "CN=app,,C=DE", "CN=app+", "CN=a\"b", "CN=a<b", `CN=a\`, `CN=a\z1`, `CN=a\f`,
		"XX=app", "2=app", "2.05.4=app", "2.5.4.-3=app", "CN=#", "CN=#zz", "CN=#0201", "CN=#020101", "CN=#0c0161ff", "CN=\xff", `CN=\ff`,
		strings.Repeat("1.", 40) + "1=app",
	} {
		if name, err := parseDN(text); err == nil {
			t.Errorf("%q is read as %v", text, name)
		}
	}
}

func FuzzDN(f *testing.F) {
	for _, text := range []string{`CN=app,O=Example\, Inc.,C=DE`, "CN=a+UID=b", `CN=\20#a\+b`, "2.5.4.3=#0c03617070", "CN=a;C=DE", "="} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		name, err := parseDN(text)
		if err != nil {
			return
		}
		var sets [][]pkix.AttributeTypeAndValue
		for _, part := range name {
			var set []pkix.AttributeTypeAndValue
			for _, a := range part {
				var oid asn1.ObjectIdentifier
				for arc := range strings.SplitSeq(a.oid, ".") {
					n := 0
					for _, digit := range arc {
						n = n*10 + int(digit-'0')
					}
					oid = append(oid, n)
				}
				set = append(set, attribute(oid, a.value))
			}
			sets = append(sets, set)
		}
		var sequence pkix.RDNSequence
		for _, set := range sets {
			sequence = append(sequence, set)
		}
		der, err := asn1.Marshal(sequence)
		if err != nil {
			return // an OID that does not exist
		}
		if !name.matches(der) {
			t.Errorf("%q does not match itself", text)
		}
	})
}
