//go:build e2e

package e2e

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// requestMaker makes templates of requests by chance, of pieces in which parsers
// differ. Each template is one request, whatever receivers make of what is in it.
type requestMaker struct{ *rand.Rand }

func (m requestMaker) of(choices ...string) string { return choices[m.IntN(len(choices))] }

// oneIn is true once in n times.
func (m requestMaker) oneIn(n int) bool { return m.IntN(n) == 0 }

// mostly is the first choice half of the time.
func (m requestMaker) mostly(first string, others ...string) string {
	if m.oneIn(2) {
		return first
	}
	return m.of(others...)
}

func (m requestMaker) token() string {
	return m.of("{L}", "{L}", "{L}", "{R}", "{R}", "{G}", "{O}")
}

// request returns a template.
func (m requestMaker) request() string {
	method := m.of("GET", "GET", "POST", "POST", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND")
	target := m.target()
	framed := method != "GET" || m.oneIn(8)
	more := m.IntN(3)
	// Half of them have tokens in one part only: each part that may be refused
	// keeps the others from being seen.
	switch m.IntN(6) {
	case 0:
		more, framed = 0, false
	case 1:
		target, more, framed = "/", 1, false
	case 2:
		target, method, more, framed = "/", "POST", 0, true
	}
	var head, body strings.Builder
	fmt.Fprintf(&head, "%s %s %s\r\n", method, target, m.mostly("HTTP/1.1", "HTTP/1.1", "HTTP/1.0"))
	host := m.mostly("Host: api.example\r\n", "Host:api.example\r\n", "hOST: api.example:80\r\n")
	fields := []string{host}
	for range more {
		fields = append(fields, m.field())
	}
	if framed {
		fields = append(fields, m.body(&body)...)
	}
	if m.oneIn(6) {
		fields = append(fields, m.connection())
	}
	m.Shuffle(len(fields), func(i, j int) { fields[i], fields[j] = fields[j], fields[i] })
	for i, field := range fields {
		if i == 0 && strings.HasPrefix(field, " ") {
			continue // nothing to continue
		}
		head.WriteString(field)
	}
	head.WriteString("X-Last: x\r\n\r\n") // whatever a field's line ends with, this is an empty one
	if !framed {
		return head.String()
	}
	return head.String() + body.String()
}

func (m requestMaker) target() string {
	target := m.mostly("/", "/a", "/a/b;c", "http://api.example/", "http://api.example", "//api.example/", "/a%3Faccess_token={R}", "/a%26b", "/./a/../")
	if !m.oneIn(3) {
		target += "?" + m.pairs(false)
	}
	if m.oneIn(12) {
		target += m.of("#", "#access_token={R}", "#?access_token={R}", "?access_token={R}", "?")
	}
	return target
}

// pairs are those of a query or a form.
func (m requestMaker) pairs(form bool) string {
	var b strings.Builder
	if m.oneIn(10) {
		b.WriteString(m.of("&", "?", ";", "&&", "=", "%26"))
	}
	for n := m.IntN(3); n >= 0; n-- {
		b.WriteString(m.parameter(form))
		if n > 0 || m.oneIn(10) {
			b.WriteString(m.mostly("&", "&", ";", "&&", "&amp;", "?", "#", "%26", "&;", "%3B", ",", "|"))
		}
	}
	return b.String()
}

func (m requestMaker) parameter(form bool) string {
	if m.oneIn(3) {
		return m.of("a=b", "page=1", "a", "=", "a=%zz", "a=b=c", "q=access_token", "a=%26access_token=x", "%", "token={L}")
	}
	name := m.mostly("access_token", "Access_Token", "ACCESS_TOKEN", "access%5Ftoken", "access%5ftoken", "%61ccess_token", "access+token",
		"access%20token", "access.token", "access-token", "access_token[]", "access_token[0]", "access_token%5B%5D", "%20access_token",
		"access_token%20", "+access_token", "access_token+", "access%255Ftoken", "access_token%00", "%00access_token", "?access_token",
		"acce%C5%BFs_token", "%u0061ccess_token", "%C2%A0access_token", "%A0access_token", "access_token%C2%A0", "%EF%BB%BFaccess_token", "[access_token",
		`"access_token"`, "access_token%3D", "my_access_token", "access_token_", "%09access_token", "access_token%0D%0A", "%26access_token", "%3Faccess_token",
		"access_token[", "access_token%5b", "access_token%2e", "a%5baccess_token%5d", "a[access_token]")
	if form && m.oneIn(6) {
		name = m.of(" access_token", "access_token ", "\r\naccess_token", "\xa0access_token", "\xef\xbb\xbfaccess_token", "\x00access_token", "access_token\t", "access\ntoken")
	}
	token := m.token()
	value := m.mostly(token, token, "{%"+token[1:], token+"+x", `"`+token+`"`, "%22"+token+"%22", token+"%20", token+","+m.token(), token+"%2C"+m.token(),
		"", "+"+token, "%20"+token, "Bearer+"+token, "Bearer%20"+token, token+"%00", token+"%0A", token+"?x", token+"=", token+"%26", "="+token, token+"%3B")
	return name + m.mostly("=", "=", "==", "%3D", "+=", "=+", "") + value
}

func (m requestMaker) field() string {
	switch m.IntN(4) {
	case 0:
		return m.name("Authorization") + m.colon() + m.credentials() + m.end()
	case 1:
		token := m.token()
		return m.name("X-Access-Token") + m.colon() + m.mostly(token, "Bearer "+token, "bearer  "+token, "Bearer"+token, token+", "+m.token(), token+","+m.token(),
			`"`+token+`"`, "Token "+token, token+" x", token+";", "", "Bearer", "{%"+token[1:], "\xa0"+token, "="+token) + m.end()
	case 2:
		return m.name("Cookie") + m.colon() + m.cookies() + m.end()
	default:
		return m.of("Origin: https://app.example\r\nAccess-Control-Request-Method: GET\r\n", "X-A: b\r\n", "Expect: 100-continue\r\n",
			"Proxy-Authorization: Bearer {R}\r\n", "DPoP: x\r\n", "X-Forwarded-Authorization: Bearer {R}\r\n", "Content-Encoding: gzip\r\n",
			"X-Original-URL: /?access_token={R}\r\n", "Content-Encoding: identity\r\n", "TE: trailers\r\n")
	}
}

func (m requestMaker) name(name string) string {
	return m.mostly(name, name, name, name, strings.ToLower(name), strings.ToUpper(name), strings.ReplaceAll(name, "-", "_"),
		strings.ReplaceAll(name, "-", "."), name+" ", " "+name, "\t"+name, name+"\t", name+"_", "X-A: b\r\n"+name)
}

func (m requestMaker) colon() string {
	return m.mostly(": ", ":", ":\t", ":  ", ": \r\n ", ":\r\n\t", ": \xa0", ": \t ")
}

func (m requestMaker) end() string {
	return m.mostly("\r\n", "\r\n", "\r\n", "\n", " \r\n", "\t\r\n", "\xa0\r\n", "\r\n x\r\n", "\r\n\t{R}\r\n", "\r\n Bearer {R}\r\n", ",\r\n")
}

func (m requestMaker) credentials() string {
	token := m.token()
	if m.oneIn(3) {
		return m.of("Bearer ", "bearer ", "BEARER  ", "DPoP ") + token
	}
	scheme := m.of("Bearer", "bearer", "DPoP", "dpop", "Basic", "Token", "JWT", "Bear", "BearerX", "", "Bearer:", `"Bearer`, "Bearer bearer", "Basic eDp5, Bearer",
		"Basic Bearer", "Bearer,", "Basic eDp5,Bearer", "Digest a=b, Bearer", "B\xe9arer", "\xa0Bearer", "OAuth", "GNAP", "Foo\xa0Bearer", "1234567", "Basic\tBearer", "Negotiate",
		"Digest username=\"Bearer", "Foo\x0bBearer", "access_token=")
	separator := m.mostly(" ", "  ", "\t", " \t", "", ",", ", ", "=", ":", " \r\n ", "\xa0", "\x0b", "\xc2\xa0", "%20", `"`, ` "`, "\x0c", "/", "+")
	suffix := m.mostly("", "", " ", ",", ", x", "=", "==", ` x`, `"`, ";", ","+m.token(), ", Bearer "+m.token(), " "+m.token(), "\t", "\xa0", "%20", "%00", ".")
	return scheme + separator + token + suffix
}

func (m requestMaker) cookies() string {
	var b strings.Builder
	if m.oneIn(8) {
		b.WriteString(m.of("$Version=1; ", ";", ",", " ", `"`, "; ", `a="`, "$Version=1,"))
	}
	for n := m.IntN(3); n >= 0; n-- {
		b.WriteString(m.cookie())
		if n > 0 || m.oneIn(8) {
			b.WriteString(m.mostly("; ", "; ", ";", ",", ", ", " ", ";;", "; ;", ";\t", ";\xa0", "\t", "\xa0", " ; ", "&", ";  ", "\x0b", "%3B ", "\r\n "))
		}
	}
	return b.String()
}

func (m requestMaker) cookie() string {
	token := m.token()
	if m.oneIn(3) {
		return m.of("a=b", "a", "=", `a="b"`, `a="`, `"`, "a=b=c", "$Path=/", `a="x; access_token={R}"`, `a="\"; access_token={R}"`, "a=%3B%20access_token={R}",
			"a=%3Baccess_token%3D{R}", "my_access_token={L}", "={R}", `a='x; access_token={R}'`, "a={L}")
	}
	name := m.mostly("access_token", "access_token", "Access_Token", "ACCESS_TOKEN", "access%5Ftoken", "%61ccess_token", "access.token", " access_token",
		"access_token ", "access_token\t", "\xa0access_token", "access_token\xa0", "\xc2\xa0access_token", "\xef\xbb\xbfaccess_token", "$access_token", "__Host-access_token", "access_token[]", "access_token[0]", "access token",
		`"access_token"`, `access_token"`, "access+token", "%20access_token", "access_token%20", "\x0baccess_token", "\x85access_token", "access_token%00")
	value := m.mostly(token, `"`+token+`"`, "{%"+token[1:], " "+token, token+" ", `"`+token, token+`"`, token+","+m.token(), "j:"+token, token+" x", `"`+token+`; a="`,
		"", `""`, "%22"+token+"%22", `\"`+token+`\"`, "Bearer "+token, "Bearer%20"+token, "s:"+token+".x", "'"+token+"'", token+"\xa0", "\xa0"+token, `" `+token+` "`)
	return name + m.mostly("=", "=", " = ", "==", "= ", " =", "", "%3D", "\t=", "=\t", "\xa0=") + value
}

// body writes a body, and returns the fields that go with it.
func (m requestMaker) body(body *strings.Builder) (fields []string) {
	const urlencoded = "application/x-www-form-urlencoded"
	content := m.pairs(true)
	kind := m.mostly(urlencoded, urlencoded, urlencoded+"; charset=utf-8", urlencoded+";charset=UTF-16LE", urlencoded+`; charset="utf-8"`, urlencoded+"; charset=iso-8859-1",
		urlencoded+"; charset=utf-7", "Application/X-WWW-Form-Urlencoded", urlencoded+";", urlencoded+" ; a=b", urlencoded+", text/plain", "text/plain, "+urlencoded,
		"text/plain; "+urlencoded, "multipart/form-data; boundary=frontier", "Multipart/Form-Data; boundary=\"frontier\"", "multipart/mixed; boundary=frontier", "application/json", "", "-",
		urlencoded+"\xa0", "x-"+urlencoded, urlencoded+"x", "application/x-www-form-urlencoded+x", "text/html", `application/json; a="`+urlencoded+`"`)
	if strings.Contains(strings.ToLower(kind), "multipart") && !m.oneIn(4) {
		content = fmt.Sprintf("--frontier\r\nContent-Disposition: form-data; name=%s\r\n\r\n%s\r\n--frontier--\r\n", m.of("access_token", `"access_token"`, "a"), m.token())
	}
	if kind != "-" {
		fields = append(fields, m.mostly("Content-Type", "content-type", "Content_Type", "Content-Type ")+": "+kind+"\r\n")
		if m.oneIn(10) {
			fields = append(fields, "Content-Type: "+m.of(urlencoded, "application/json", "")+"\r\n")
		}
	}
	if m.oneIn(12) {
		fields = append(fields, "Connection: Content-Type\r\n")
	}
	if !m.oneIn(4) {
		body.WriteString(content)
		return append(fields, "Content-Length: {N}\r\n")
	}
	body.WriteString("{C}" + content)
	if m.oneIn(2) {
		fields = append(fields, "Trailer: "+m.of("X-A", "X-A", "Authorization", "X-Access-Token", "x_access_token", "Cookie", "X-A, Cookie")+"\r\n")
		body.WriteString("{T}" + m.of("X-A: b", "Authorization: Bearer {R}", "X-Access-Token: {R}", "Cookie: access_token={R}", "x_access_token: {R}"))
	}
	return append(fields, "Transfer-Encoding: chunked\r\n")
}

// connection names fields that proxies leave out.
func (m requestMaker) connection() string {
	return "Connection: " + m.mostly("close", "keep-alive", "Authorization", "authorization, close", "X-Access-Token", "x_access_token", "Cookie", "Content-Type",
		"content-encoding", "keep-alive, Content-Type", "Content-Length", "transfer-encoding", "Host", "DPoP", "Upgrade", ",", "Connection", "close\r\nConnection: Content-Type") + "\r\n"
}
