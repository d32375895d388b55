package oauth

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

const placed = "eyJh.eyJp.c2ln-_"

func mustPlaces(t testing.TB, list ...Place) *Places {
	t.Helper()
	p, err := NewPlaces(list)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func everyPlace(a PlaceAction) []Place {
	return []Place{
		{PlaceHeader, "X-Access-Token", a},
		{PlaceCookie, "access_token", a},
		{PlaceQuery, "access_token", a},
		{PlaceForm, "access_token", a},
	}
}

func formRequest(method, contentType, body string) *http.Request {
	r := httptest.NewRequest(method, "/", strings.NewReader(body))
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	return r
}

func withQuery(query string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.URL.RawQuery = query
	return r
}

func withField(name string, values ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header[name] = values
	return r
}

// Wherever a token may be, there is exactly one, or the request is refused.
func TestPlacesReadExactlyOneTokenOrRefuse(t *testing.T) {
	const urlencoded = formType
	tests := []struct {
		name   string
		r      *http.Request
		status int // 0: a token, -1: none
	}{
		{"nothing", withQuery(""), -1},
		{"header", withField("X-Access-Token", placed), 0},
		{"header as in Authorization", withField("X-Access-Token", "bearer  "+placed), 0},
		{"empty header", withField("X-Access-Token", " "), -1},
		{"header with another scheme", withField("X-Access-Token", "Basic "+placed), 400},
		{"header with the scheme alone", withField("X-Access-Token", "Bearer "), 400},
		{"header twice", withField("X-Access-Token", placed, placed), 400},
		{"header twice, one empty", withField("X-Access-Token", "", placed), 400},
		{"header with a list", withField("X-Access-Token", placed+","+placed), 400},
		{"header with underscores", withField("X_access_token", placed), 400},
		{"header with dots", withField("X.access.token", placed), 400},
		{"hop by hop", withField("Connection", "close, x-access-token"), 400},
		{"hop by hop, Authorization", withField("Connection", "AUTHORIZATION"), 400},
		{"hop by hop, the type of a form", withField("Connection", "Content-Type"), 400},
		{"hop by hop, cookies", withField("Connection", "cookie"), 400},
		{"hop by hop, something else", withField("Connection", "keep-alive, Upgrade"), -1},

		{"cookie", withField("Cookie", "a=b; access_token="+placed), 0},
		{"quoted cookie", withField("Cookie", `access_token="`+placed+`"; a=b`), 0},
		{"cookie in a second field", withField("Cookie", "a=b", "access_token="+placed), 0},
		{"deleted cookie", withField("Cookie", "access_token="), -1},
		{"cookie twice", withField("Cookie", "access_token="+placed+"; access_token="+placed), 400},
		{"cookie in two fields", withField("Cookie", "access_token="+placed, "access_token="+placed), 400},
		{"cookie after an empty one", withField("Cookie", "access_token=; access_token="+placed), 400},
		{"cookie in other letters", withField("Cookie", "Access_Token="+placed), 400},
		{"cookie as PHP names it", withField("Cookie", "access.token="+placed), 400},
		{"cookie with an encoded name", withField("Cookie", "access%5ftoken="+placed), 400},
		{"cookie after a comma", withField("Cookie", "a=b,access_token="+placed), 400},
		{"cookie after a space", withField("Cookie", "a=b access_token="+placed), 400},
		{"cookie in quotes", withField("Cookie", `a="x; access_token=`+placed+`"`), 400},
		{"cookie with a space before its equals sign", withField("Cookie", "access_token ="+placed), 400},
		{"cookie after a no-break space", withField("Cookie", "\xa0access_token="+placed), 400},
		{"cookie after a no-break space in UTF-8", withField("Cookie", "a=b;\u00a0access_token="+placed), 400},
		{"cookie with a no-break space before its equals sign", withField("Cookie", "access_token\u00a0="+placed), 400},
		{"cookie in what another one decodes to", withField("Cookie", "a=b%3B%20access_token="+placed), 400},
		{"cookie that decodes to something else", withField("Cookie", "a=b%3B%20access=%zz; b=%3Daccess_token%3D; access_token="+placed), 0},
		{"cookie with a bad value", withField("Cookie", "access_token=a b"), 400},
		{"cookie that is a part of another", withField("Cookie", "my_access_token="+placed+"; access_token2=x; a=access_token"), -1},
		{"cookie with the name in its value", withField("Cookie", "a=x=access_token; b={access_token}"), -1},

		{"query", withQuery("a=b&access_token=" + placed), 0},
		{"query, encoded", withQuery("access%5Ftoken=" + strings.ReplaceAll(placed, ".", "%2e")), 0},
		{"query, empty", withQuery("access_token=&a"), -1},
		{"query twice", withQuery("access_token=" + placed + "&access_token=" + placed), 400},
		{"query twice, one empty", withQuery("access_token&access_token=" + placed), 400},
		{"query in other letters", withQuery("ACCESS_TOKEN=" + placed), 400},
		{"query with a long s", withQuery("acce%C5%BFs_token=" + placed), 400},
		{"query after a semicolon", withQuery("a=b;access_token=" + placed), 400},
		{"query before a semicolon", withQuery("access_token=" + placed + ";a=b"), 400},
		{"query as an array", withQuery("access_token[]=" + placed), 400},
		{"query as an encoded array", withQuery("access_token%5B0%5D=" + placed), 400},
		{"query after a second question mark", withQuery("?access_token=" + placed), 400},
		{"query after another question mark", withQuery("a=b?access_token=" + placed), 400},
		{"query before another question mark", withQuery("access_token=" + placed + "?a=b"), 400},
		{"query with a no-break space", withQuery("%A0access_token%C2%A0=" + placed), 400},
		{"query as PHP names it", withQuery("+access.token=" + placed), 400},
		{"query with a zero byte", withQuery("access_token%00x=" + placed), 400},
		{"query as IIS decodes it", withQuery("%u0061ccess_token=" + placed), 400},
		{"query with a plus sign", withQuery("access_token=a+b"), 400},
		{"query with a broken escape", withQuery("access_token=a%2"), 400},
		{"query of another name", withQuery("xaccess_token=" + placed + "&access_token_type=x&a=access_token"), -1},

		{"form", formRequest("POST", urlencoded, "a=b&access_token="+placed), 0},
		{"form with a charset", formRequest("PUT", "application/x-www-form-urlencoded; charset=UTF-8", "access_token="+placed), 0},
		{"form without a type", formRequest("POST", "", "access_token="+placed), 0},
		{"form without a token", formRequest("POST", urlencoded, "a=b"), -1},
		{"form twice", formRequest("POST", urlencoded, "access_token="+placed+"&access_token="+placed), 400},
		{"form with a no-break space", formRequest("POST", urlencoded, "\xa0access_token="+placed), 400},
		{"form with a question mark in another value", formRequest("POST", urlencoded, "a=b?access_token=c&access_token="+placed), 0},
		{"form with a line break", formRequest("POST", urlencoded, "access_token="+placed+"\r\n"), 400},
		{"form in UTF-16", formRequest("POST", urlencoded+"; charset=utf-16le", "a=b"), 415},
		{"form of several parts", formRequest("POST", "multipart/form-data; boundary=x", "--x--"), 415},
		{"form with a broken type", formRequest("POST", "application/x-www-form-urlencoded;;;=", "a=b"), 400},
		{"form by a similar type", formRequest("POST", "text/plain, application/x-www-form-urlencoded", "a=b"), 400},
		{"form by GET", formRequest("GET", urlencoded, "access_token="+placed), 400},
		{"form that is too large", formRequest("POST", urlencoded, strings.Repeat("x", MaxFormBody+1)), 413},
		{"JSON", formRequest("POST", "application/json", `{"access_token":"`+placed+`"}`), -1},
	}
	places := mustPlaces(t, everyPlace(PlaceInspect)...)
	rejecting := mustPlaces(t, everyPlace(PlaceReject)...)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := places.Read(tt.r)
			var refused *PlaceError
			switch {
			case tt.status == 0 && (err != nil || got.Token != placed):
				t.Fatalf("%+v, %v, want the token", got, err)
			case tt.status == -1 && !errors.Is(err, ErrNoToken):
				t.Fatalf("%+v, %v, want none", got, err)
			case tt.status > 0 && (!errors.As(err, &refused) || refused.Status != tt.status):
				t.Fatalf("%+v, %v, want status %d", got, err, tt.status)
			case tt.status != 0 && got != (Presented{}):
				t.Errorf("%+v together with %v", got, err)
			}
			if tt.status == 0 || got.Token != "" {
				// one more, in the usual place
				tt.r.Header.Set("Authorization", "Bearer "+placed)
				if _, err := places.Read(tt.r); !errors.Is(err, ErrSeveralTokens) {
					t.Errorf("with a second token: %v", err)
				}
				tt.r.Header.Del("Authorization")
				if _, err := rejecting.Read(tt.r); !errors.Is(err, ErrRejectedPlace) {
					t.Errorf("in a place that is rejected: %v", err)
				}
			}
		})
	}
}

func TestPlacesByDefault(t *testing.T) {
	places := mustPlaces(t)
	for name, c := range map[string]struct {
		r    *http.Request
		want error
	}{
		"Authorization":       {withField("Authorization", "Bearer "+placed), nil},
		"two of them":         {withField("Authorization", "Bearer "+placed, "Bearer "+placed), ErrSeveralTokens},
		"query":               {withQuery("access_token=" + placed), ErrRejectedPlace},
		"empty in the query":  {withQuery("access_token"), ErrRejectedPlace},
		"query, hidden":       {withQuery("a;%41ccess[]_token&Access.Token[]=x"), ErrRejectedPlace},
		"another query":       {withQuery("token=x&access=token"), ErrNoToken},
		"cookies":             {withField("Cookie", "access_token="+placed), ErrNoToken},
		"form":                {formRequest("POST", formType, "access_token="+placed), ErrNoToken},
		"another header":      {withField("X-Access-Token", placed), ErrNoToken},
		"its field by itself": {withField("Connection", "keep-alive,authorization"), ErrBadPlace},
	} {
		if _, err := places.Read(c.r); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	dpop := withField("Authorization", "DPoP "+placed)
	dpop.Header["Dpop"] = []string{"a", "b"}
	if _, err := places.Read(dpop); !errors.Is(err, ErrBadPlace) {
		t.Errorf("two proofs: %v", err)
	}
}

// Most frameworks have one function for both.
func TestFormParameterIsRejectedInTheQuery(t *testing.T) {
	places := mustPlaces(t, Place{PlaceForm, "t", PlaceInspect})
	if _, err := places.Read(withQuery("t=" + placed)); !errors.Is(err, ErrRejectedPlace) {
		t.Error(err)
	}
	places = mustPlaces(t, Place{PlaceForm, "t", PlaceInspect}, Place{PlaceQuery, "t", PlaceInspect})
	r := formRequest("POST", formType, "t="+placed)
	r.URL.RawQuery = "t=" + placed
	if _, err := places.Read(r); !errors.Is(err, ErrSeveralTokens) {
		t.Error(err)
	}
}

// What is stripped is gone to every receiver, and nothing else is.
func TestStripLeavesTheRestAsItIs(t *testing.T) {
	places := mustPlaces(t, append(everyPlace(PlaceStrip), Place{PlaceHeader, "Authorization", PlaceStrip})...)
	if !places.Strips() || mustPlaces(t).Strips() {
		t.Error("Strips")
	}
	r := formRequest("POST", formType, "&a=%7e&access_token=x&b;c&access%5ftoken=y&=")
	r.URL.RawQuery = "x=1&&access_token=z&a=b;c&%zz"
	r.Header["Authorization"] = []string{"Bearer a", "Bearer b"}
	r.Header["X-Access-Token"] = []string{"a", "b"}
	r.Header["X_access_token"] = []string{"c"}
	r.Header["X-Access"] = []string{"kept"}
	r.Header["Cookie"] = []string{`a=" x y "; access_token=x;b=c`, "access_token=y", "c"}
	if got, err := places.Read(r); !errors.Is(err, ErrNoToken) {
		t.Fatalf("%+v, %v", got, err)
	}
	places.Strip(r)
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	if string(body) != "&a=%7e&b;c&=" || r.ContentLength != int64(len(body)) {
		t.Errorf("body %q of %d bytes", body, r.ContentLength)
	}
	if r.URL.RawQuery != "x=1&&a=b;c&%zz" {
		t.Errorf("query %q", r.URL.RawQuery)
	}
	if h := r.Header; len(h) != 4 || h.Get("X-Access") != "kept" || len(h["Cookie"]) != 2 || h["Cookie"][0] != `a=" x y ";b=c` || h["Cookie"][1] != "c" {
		t.Errorf("header %q", h)
	}

	// What can't be removed for every receiver is refused.
	for _, r := range []*http.Request{
		withQuery("a=1;access_token=x"), withQuery("Access_Token=x"), withField("Cookie", `a="b; access_token=x"`),
		withField("Cookie", "a=b access_token=x"), formRequest("POST", formType, "access_token[]=x"),
	} {
		if _, err := places.Read(r); !errors.Is(err, ErrBadPlace) {
			t.Errorf("%q %q: %v", r.URL.RawQuery, r.Header["Cookie"], err)
		}
	}
	basic := withField("Authorization", "Basic eA==")
	if _, err := places.Read(basic); !errors.Is(err, ErrNoToken) {
		t.Error(err)
	}
	if places.Strip(basic); basic.Header.Get("Authorization") == "" {
		t.Error("another scheme was removed")
	}
}

// A form is handed on as it came, whatever was found in it and however long it
// is.
func TestFormsAreHandedOnIntact(t *testing.T) {
	places := mustPlaces(t, Place{PlaceForm, DefaultParameter, PlaceInspect})
	for name, body := range map[string]string{
		"token": "a=%41&access_token=" + placed, "none": "a;b&&", "empty": "", "two": "access_token=a&access_token=b",
		"at the limit": strings.Repeat("x", MaxFormBody), "too long": strings.Repeat("x", 3*MaxFormBody),
	} {
		for _, length := range []int64{int64(len(body)), -1} {
			r := formRequest("POST", formType, body)
			r.ContentLength = length
			_, _ = places.Read(r)
			_, _ = places.Read(r) // by another handler
			got, err := io.ReadAll(r.Body)
			if err != nil || string(got) != body || r.ContentLength != length {
				t.Errorf("%s: %d bytes of %d with length %d, %v", name, len(got), len(body), r.ContentLength, err)
			}
		}
	}
	broken := formRequest("POST", formType, "")
	broken.Body = io.NopCloser(io.MultiReader(strings.NewReader("a=b"), errReader{}))
	var refused *PlaceError
	if _, err := places.Read(broken); !errors.As(err, &refused) || refused.Status != 400 || !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, io.ErrClosedPipe }

// A trailer comes after the decision.
func TestTrailersBringNoToken(t *testing.T) {
	places := mustPlaces(t, Place{PlaceHeader, "X-Access-Token", PlaceInspect})
	for name, want := range map[string]error{"Authorization": ErrBadPlace, "X-Access-Token": ErrBadPlace, "X_access_token": ErrBadPlace, "X-Sum": ErrNoToken, "A " + placed: ErrBadPlace} {
		r := formRequest("POST", "", "x")
		r.Trailer = http.Header{name: nil}
		if _, err := places.Read(r); !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	r := formRequest("POST", "", "")
	r.Trailer = http.Header{"X-Sum": nil}
	r.Body = io.NopCloser(readFunc(func([]byte) (int, error) { // as net/http does
		r.Trailer["Authorization"], r.Trailer["X-Sum"] = []string{"Bearer x"}, []string{"1"}
		return 0, io.EOF
	}))
	_, _ = places.Read(r)
	if _, err := io.ReadAll(r.Body); err != nil || len(r.Trailer) != 1 || r.Trailer.Get("X-Sum") != "1" {
		t.Errorf("%v, trailer %q", err, r.Trailer)
	}
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(b []byte) (int, error) { return f(b) }

func TestPlacesThatCanNotBe(t *testing.T) {
	for name, list := range map[string][]Place{
		"no name":           {{Kind: PlaceCookie}},
		"a space":           {{Kind: PlaceQuery, Name: "a b"}},
		"an escape":         {{Kind: PlaceQuery, Name: "a%20b"}},
		"brackets":          {{Kind: PlaceForm, Name: "a[]"}},
		"reserved":          {{Kind: PlaceHeader, Name: "cookie"}},
		"twice":             {{Kind: PlaceQuery, Name: "a"}, {Kind: PlaceQuery, Name: "a", Action: PlaceStrip}},
		"twice, other case": {{Kind: PlaceHeader, Name: "X-A"}, {Kind: PlaceHeader, Name: "x_a"}},
		"unknown kind":      {{Kind: 9, Name: "a"}},
	} {
		if _, err := NewPlaces(list); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestReadingTheUsualPlaceDoesNotAllocate(t *testing.T) {
	places := mustPlaces(t)
	r := withField("Authorization", "Bearer "+strings.Repeat("a", 1000))
	r.URL.RawQuery = "a=b&page=1&access=x&some_token_=y"
	r.Header["Connection"] = []string{"keep-alive"}
	if n := testing.AllocsPerRun(100, func() { _, _ = places.Read(r) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkPlacesByDefault(b *testing.B) {
	places := mustPlaces(b)
	r := withField("Authorization", "Bearer "+strings.Repeat("a", 700))
	r.URL.RawQuery = "a=b&page=1"
	r.Header["Connection"] = []string{"keep-alive"}
	b.ReportAllocs()
	for b.Loop() {
		_, _ = places.Read(r)
	}
}
