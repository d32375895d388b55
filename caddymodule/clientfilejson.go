package caddymodule

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"
)

// clientEntry is a client in a file, and where it is.
type clientEntry struct {
	ClientConfig
	at position
}

// position is a place in a text, both counted from 1; columns count bytes.
type position struct{ line, column int }

func (p position) String() string { return fmt.Sprintf("line %d, column %d", p.line, p.column) }

// parseClientFile reads the text of a clients file. It is stricter than
// encoding/json, which would ignore a misspelled member, and with it perhaps what
// restricts a client: members have to be known, in exactly this case, and to
// occur once. Errors say where; none quotes a value.
func parseClientFile(text []byte) ([]clientEntry, error) {
	if !utf8.Valid(text) {
		return nil, errors.New("it is not UTF-8")
	}
	var document struct {
		Clients *[]ClientConfig `json:"clients"`
	}
	if err := json.Unmarshal(text, &document); err != nil {
		return nil, describeJSON(text, err)
	}
	w := &fileWalker{text: text, decoder: json.NewDecoder(bytes.NewReader(text))}
	w.decoder.UseNumber()
	if err := w.walk(levelFile); err != nil {
		return nil, err
	}
	if document.Clients == nil {
		return nil, errors.New(`it has no member "clients"`)
	}
	if len(w.clients) != len(*document.Clients) {
		return nil, errors.New("it can't be read") // one of the two readers is wrong
	}
	entries := make([]clientEntry, 0, len(w.clients))
	for i, c := range *document.Clients {
		entries = append(entries, clientEntry{c, w.clients[i]})
	}
	return entries, nil
}

// describeJSON says where an error is. The errors of encoding/json name members
// and types, never values, but for a number that does not fit.
func describeJSON(text []byte, err error) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Errorf("%s: %w", positionAt(text, int(syntax.Offset)-1), err)
	case errors.As(err, &kind):
		return fmt.Errorf("%s: %s has to be %s", positionAt(text, int(kind.Offset)-1), member(kind.Field), jsonKind(kind.Type))
	default:
		return errors.New("it can't be read")
	}
}

func member(field string) string {
	if field == "" {
		return "the text"
	}
	return field
}

func jsonKind(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a string"
	case reflect.Slice, reflect.Array:
		return "a list"
	default:
		return "an object"
	}
}

func positionAt(text []byte, offset int) position {
	before := text[:min(max(offset, 0), len(text))]
	return position{bytes.Count(before, []byte{'\n'}) + 1, len(before) - bytes.LastIndexByte(before, '\n')}
}

// level is where in the file a value is, which decides what it may hold.
type level uint8

const (
	levelFile level = iota
	levelClients
	levelClient
	levelInside
)

// fileWalker looks at the names of all objects of a text that is known to be
// JSON.
type fileWalker struct {
	text    []byte
	decoder *json.Decoder
	clients []position
}

// clientMembers are the names that a client may have.
var clientMembers = func() map[string]bool {
	names := make(map[string]bool)
	for field := range reflect.TypeFor[ClientConfig]().Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		names[name] = true
	}
	return names
}()

func (w *fileWalker) walk(l level) error {
	token, err := w.decoder.Token()
	if err != nil {
		return errors.New("it can't be read")
	}
	at := positionAt(w.text, int(w.decoder.InputOffset())-1)
	delim, ok := token.(json.Delim)
	switch {
	case l == levelClient && (!ok || delim != '{'):
		return fmt.Errorf("%s: a client is an object", at)
	case !ok:
		return nil
	case delim == '[':
		for w.decoder.More() {
			next := levelInside
			if l == levelClients {
				next = levelClient
			}
			if err := w.walk(next); err != nil {
				return err
			}
		}
	default:
		if l == levelClient {
			w.clients = append(w.clients, at)
		}
		if err := w.object(l); err != nil {
			return err
		}
	}
	_, err = w.decoder.Token() // the closing bracket
	return err
}

func (w *fileWalker) object(l level) error {
	seen := make(map[string]bool)
	for w.decoder.More() {
		token, err := w.decoder.Token()
		name, ok := token.(string)
		if err != nil || !ok {
			return errors.New("it can't be read")
		}
		at := positionAt(w.text, int(w.decoder.InputOffset())-1)
		next := levelInside
		switch {
		case seen[name]:
			return fmt.Errorf("%s: the member %q is given twice", at, name)
		case l == levelFile && name != "clients":
			return fmt.Errorf(`%s: the member %q is not known; there is only "clients"`, at, name)
		case l == levelFile:
			next = levelClients
		case l == levelClient && !clientMembers[name]:
			return fmt.Errorf("%s: the member %q is not known; known are: %s", at, name,
				strings.Join(slices.Sorted(maps.Keys(clientMembers)), ", "))
		}
		seen[name] = true
		if err := w.walk(next); err != nil {
			return err
		}
	}
	return nil
}
