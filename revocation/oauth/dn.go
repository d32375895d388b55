package oauth

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// dn is a distinguished name in the order of a certificate: the most general
// part first.
type dn [][]dnAttribute

type dnAttribute struct {
	oid   string
	value string
}

// dnTypes are the attribute types that a distinguished name may spell by name,
// in upper case (RFC 4514, section 3, and what openssl and Java print).
var dnTypes = map[string]string{
	"CN":                     "2.5.4.3",
	"SN":                     "2.5.4.4",
	"SURNAME":                "2.5.4.4",
	"SERIALNUMBER":           "2.5.4.5",
	"C":                      "2.5.4.6",
	"L":                      "2.5.4.7",
	"ST":                     "2.5.4.8",
	"S":                      "2.5.4.8",
	"STREET":                 "2.5.4.9",
	"O":                      "2.5.4.10",
	"OU":                     "2.5.4.11",
	"T":                      "2.5.4.12",
	"TITLE":                  "2.5.4.12",
	"BUSINESSCATEGORY":       "2.5.4.15",
	"POSTALCODE":             "2.5.4.17",
	"GIVENNAME":              "2.5.4.42",
	"GN":                     "2.5.4.42",
	"INITIALS":               "2.5.4.43",
	"DNQUALIFIER":            "2.5.4.46",
	"PSEUDONYM":              "2.5.4.65",
	"ORGANIZATIONIDENTIFIER": "2.5.4.97",
	"UID":                    "0.9.2342.19200300.100.1.1",
	"DC":                     "0.9.2342.19200300.100.1.25",
	"E":                      "1.2.840.113549.1.9.1",
	"EMAIL":                  "1.2.840.113549.1.9.1",
	"EMAILADDRESS":           "1.2.840.113549.1.9.1",
	"JURISDICTIONC":          "1.3.6.1.4.1.311.60.2.1.3",
	"JURISDICTIONST":         "1.3.6.1.4.1.311.60.2.1.2",
	"JURISDICTIONL":          "1.3.6.1.4.1.311.60.2.1.1",
}

var errDN = errors.New("it is no distinguished name such as CN=app,O=Example,C=DE")

// parseDN reads the string form of a distinguished name (RFC 4514, section 3).
// Space around the separators is allowed, as older writers leave it. A value in
// the form #hex is the DER of a string.
func parseDN(text string) (dn, error) {
	if !utf8.ValidString(text) {
		return nil, errDN
	}
	var name dn
	var part []dnAttribute
	for rest := text; ; {
		kind, after, ok := strings.Cut(rest, "=")
		if !ok {
			return nil, errDN
		}
		oid, err := dnType(strings.Trim(kind, " "))
		if err != nil {
			return nil, err
		}
		value, after, err := dnValue(strings.TrimLeft(after, " "))
		if err != nil {
			return nil, err
		}
		part = append(part, dnAttribute{oid, value})
		if after == "" || after[0] != '+' {
			slices.SortFunc(part, compareAttributes)
			name, part = append(name, part), nil
		}
		if after == "" {
			break
		}
		rest = after[1:]
	}
	slices.Reverse(name) // the string begins with the most specific part
	return name, nil
}

func dnType(text string) (string, error) {
	if oid, ok := dnTypes[strings.ToUpper(text)]; ok {
		return oid, nil
	}
	text = strings.TrimPrefix(strings.TrimPrefix(text, "OID."), "oid.")
	arcs := strings.Split(text, ".")
	if len(arcs) < 2 || len(arcs) > 32 {
		return "", errors.New("its attribute type " + strconv.Quote(text) + " is not known: use a name such as CN, or its number, such as 2.5.4.3")
	}
	for _, arc := range arcs {
		n, err := strconv.ParseUint(arc, 10, 31)
		if err != nil || strconv.FormatUint(n, 10) != arc {
			return "", errDN
		}
	}
	return text, nil
}

// dnValue reads a value up to the separator that ends it, and returns the rest
// from there.
func dnValue(text string) (value, rest string, err error) {
	if strings.HasPrefix(text, "#") {
		return dnHexValue(text[1:])
	}
	var out []byte
	solid := 0 // the length up to the last character that is no plain space
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case ',', '+', ';':
			return dnText(out[:solid], text[i:])
		case '"', '<', '>', 0:
			return "", "", errDN // have to be escaped
		case '\\':
			if i+1 >= len(text) {
				return "", "", errDN
			}
			if next := text[i+1]; strings.IndexByte(` "#+,;<=>\`, next) >= 0 {
				out = append(out, next)
				i++
			} else {
				if i+2 >= len(text) {
					return "", "", errDN
				}
				b, err := hex.DecodeString(text[i+1 : i+3])
				if err != nil {
					return "", "", errDN
				}
				out = append(out, b[0])
				i += 2
			}
			solid = len(out)
		default:
			out = append(out, c)
			if c != ' ' {
				solid = len(out)
			}
		}
	}
	return dnText(out[:solid], "")
}

func dnText(value []byte, rest string) (string, string, error) {
	if len(value) == 0 || !utf8.Valid(value) || rest == "," || rest == "+" || rest == ";" {
		return "", "", errDN
	}
	return string(value), rest, nil
}

func dnHexValue(text string) (value, rest string, err error) {
	end := strings.IndexAny(text, ",+;")
	if end < 0 {
		end = len(text)
	}
	der, err := hex.DecodeString(strings.TrimRight(text[:end], " "))
	if err != nil {
		return "", "", errDN
	}
	var decoded any
	if after, err := asn1.Unmarshal(der, &decoded); err != nil || len(after) > 0 {
		return "", "", errDN
	}
	s, ok := decoded.(string)
	if !ok {
		return "", "", errors.New("it has a value that is no text")
	}
	return dnText([]byte(s), text[end:])
}

func compareAttributes(a, b dnAttribute) int {
	if c := strings.Compare(a.oid, b.oid); c != 0 {
		return c
	}
	return strings.Compare(a.value, b.value)
}

// matches tells whether a certificate's subject (DER) is this name. Values are
// compared byte by byte, whatever kind of ASN.1 string they are: authorities
// that issue names which differ in case only are possible, clients that change
// the case of their own name are not.
func (d dn) matches(subject []byte) bool {
	var sequence pkix.RDNSequence
	if rest, err := asn1.Unmarshal(subject, &sequence); err != nil || len(rest) > 0 || len(sequence) != len(d) {
		return false
	}
	for i, set := range sequence {
		part := make([]dnAttribute, 0, len(set))
		for _, attribute := range set {
			value, ok := attribute.Value.(string)
			if !ok {
				return false
			}
			part = append(part, dnAttribute{attribute.Type.String(), value})
		}
		slices.SortFunc(part, compareAttributes)
		if !slices.Equal(part, d[i]) {
			return false
		}
	}
	return true
}
