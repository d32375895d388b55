package oauth

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

func jsonBody(o *EndpointOptions) { o.JSONBody = true }

func asJSON(contentType string, also func(*http.Request)) func(*http.Request) {
	return func(r *http.Request) {
		r.Header.Set("Content-Type", contentType)
		if also != nil {
			also(r)
		}
	}
}

func TestParametersInAJSONObject(t *testing.T) {
	own := `"token":"` + tokenOwn + `"`
	for _, tt := range []struct {
		name, contentType, body string
		change                  func(*http.Request)
		status                  int
		code                    string
	}{
		{"with Basic", "application/json", `{` + own + `}`, asApp, 200, ""},
		{"credentials in it", "application/json", `{` + own + `,"client_id":"app","client_secret":"app-secret"}`, nil, 200, ""},
		{"a charset", "application/json; charset=UTF-8", ` {` + own + `} `, asApp, 200, ""},
		{"escapes", "application/json", `{"\u0074oken":"own.access.\u0074oken"}`, asApp, 200, ""},
		{"other members of any kind", "application/json", `{"x":[1,{"token":2}],"y":null,` + own + `,"":{}}`, asApp, 200, ""},
		{"a form all the same", formMediaType, "token=" + tokenOwn, asApp, 200, ""},
		{"the token is a number", "application/json", `{"token":123}`, asApp, 400, ErrorInvalidRequest},
		{"the token is null", "application/json", `{"token":null}`, asApp, 400, ErrorInvalidRequest},
		{"the token is a list", "application/json", `{"token":["` + tokenOwn + `"]}`, asApp, 400, ErrorInvalidRequest},
		{"the hint is a number", "application/json", `{` + own + `,"token_type_hint":1}`, asApp, 400, ErrorInvalidRequest},
		{"twice", "application/json", `{` + own + `,` + own + `}`, asApp, 400, ErrorInvalidRequest},
		{"twice, once with an escape", "application/json", `{` + own + `,"toke\u006e":"x"}`, asApp, 400, ErrorInvalidRequest},
		{"another member twice", "application/json", `{` + own + `,"x":1,"x":2}`, asApp, 400, ErrorInvalidRequest},
		{"in capitals", "application/json", `{"TOKEN":"` + tokenOwn + `"}`, asApp, 400, ErrorInvalidRequest},
		{"no object", "application/json", `["` + tokenOwn + `"]`, asApp, 400, ErrorInvalidRequest},
		{"two objects", "application/json", `{` + own + `}{}`, asApp, 400, ErrorInvalidRequest},
		{"broken", "application/json", `{` + own, asApp, 400, ErrorInvalidRequest},
		{"not UTF-8", "application/json", "{" + own + ",\"x\":\"\xff\"}", asApp, 400, ErrorInvalidRequest},
		{"empty", "application/json", "", asApp, 400, ErrorInvalidRequest},
		{"a form that says JSON", "application/json", "token=" + tokenOwn, asApp, 400, ErrorInvalidRequest},
		{"JSON that says form", formMediaType, `{` + own + `}`, asApp, 400, ErrorInvalidRequest},
		{"another charset", "application/json; charset=utf-16", `{` + own + `}`, asApp, 400, ErrorInvalidRequest},
		{"another type", "application/ld+json", `{` + own + `}`, asApp, 400, ErrorInvalidRequest},
		{"too many members", "application/json", `{` + own + strings.Repeat(`,"":1`, 64) + `}`, asApp, 400, ErrorInvalidRequest},
		{"too long", "application/json", `{` + own + `,"x":"` + strings.Repeat("x", DefaultMaxBody) + `"}`, asApp, 413, ErrorInvalidRequest},
		{"a coding", "application/json", `{` + own + `}`, func(r *http.Request) { asApp(r); r.Header.Set("Content-Encoding", "gzip") }, 415, ErrorInvalidRequest},
		{"two methods", "application/json", `{` + own + `,"client_secret":"app-secret"}`, asApp, 400, ErrorInvalidRequest},
		{"a wrong secret", "application/json", `{` + own + `,"client_id":"app","client_secret":"x"}`, nil, 401, ErrorInvalidClient},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, jsonBody)
			w := r.post(tt.body, asJSON(tt.contentType, tt.change))
			if code := errorCode(t, w.Code, w.Body); w.Code != tt.status || code != tt.code {
				t.Errorf("status %d %q", w.Code, code)
			}
			if (tt.status == 200) != (len(r.revoker.requests) == 1) {
				t.Errorf("recorded %+v", r.revoker.requests)
			}
		})
	}
	r := newRig(t, nil)
	if w := r.post(`{`+own+`}`, asJSON("application/json", asApp)); w.Code != 400 || len(r.revoker.requests) != 0 {
		t.Errorf("without the option: status %d", w.Code)
	}
}

// What is accepted says the same to every other parser, which takes the first or
// the last of two members.
func FuzzJSONForm(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"token":"a"}`, `{"token":"a","token":"b"}`, `{"token":1}`, `{"a":{"token":"x"},"token":"\u0061"}`, "{\"\xff\":1}",
		`{"token":"\ud800"}`, `{"token":"a"} x`, `[]`, `{"client_id":null}`, `{"x":1e999}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		got, err := parseJSONForm(body)
		if err != nil {
			if got != nil {
				t.Fatalf("%q: %v with an error", body, got)
			}
			return
		}
		var want map[string]json.RawMessage
		if err := json.Unmarshal([]byte(body), &want); err != nil {
			t.Fatalf("%q is accepted: %v", body, err)
		}
		if len(want) != len(got) {
			t.Fatalf("%q: %d parameters, want %d", body, len(got), len(want))
		}
		for name, text := range got {
			raw, found := want[name]
			if !found {
				t.Fatalf("%q has no %q", body, name)
			}
			if !isParameter(name) && text == "" {
				continue
			}
			var value string
			if err := json.Unmarshal(raw, &value); err != nil || raw[0] != '"' || value != text {
				t.Fatalf("%q: %q is %q, want %s", body, name, text, raw)
			}
		}
	})
}
