//go:build e2e

package e2e

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"strings"
)

// formAttacks are about tokens in bodies.
func formAttacks() []attack {
	const token = "access_token=$T"
	multipart := "--b\r\nContent-Disposition: form-data; name=\"access_token\"\r\n\r\n$T\r\n--b--\r\n"
	big := strings.Repeat("x", 64<<10)
	inForm := func(name string, w wire) attack { return attack{name: name, request: w, want: inPlace} }
	rows := []attack{
		inForm("form", form(token)),
		inForm("form among others", form("a=b&"+token+"&c=d")),
		inForm("form, every byte escaped", form("access%5Ftoken=$P")),
		inForm("form, type in another case", body(token, "Content-Type: Application/X-WWW-Form-Urlencoded; Charset=\"UTF-8\"")),
		inForm("form, Latin-1", body(token, "Content-Type: application/x-www-form-urlencoded;charset=iso-8859-1")),
		inForm("form, identity coding", form(token, "Content-Encoding: identity")),
		inForm("form without a type", body(token)),
		inForm("form with an empty type", body(token, "Content-Type:")),
		inForm("form in a PUT", send("PUT", token, urlencoded)),
		inForm("form in a DELETE", send("DELETE", token, urlencoded)),
		inForm("form in a method of one's own", send("STEAL", token, urlencoded)),
		inForm("form with a method override", form(token, "X-HTTP-Method-Override: GET")),
		inForm("form at the limit", form("a="+big[:60<<10]+"&"+token)),
		inForm("form, Expect: 100-continue", form(token, "Expect: 100-continue")),
		inForm("form in chunks", chunked(1<<20, "", "", token)),
		inForm("form in chunks of one byte", chunked(1, "", "", token)),
		inForm("form in chunks with extensions", chunked(7, ";x=access_token;y=\"$L\"", "", token)),
		inForm("form in chunks of HTTP/1.1 with Expect", chunked(5, "", "", token, "Expect: 100-Continue")),
		inForm("form in chunks with a trailer", chunked(50, "", "X-Sum: 1\r\n", token, "Trailer: X-Sum")),
		{name: "form in chunks, bare LF in an extension", request: chunked(9, ";x\ny", "", token), want: "C444CC"},
		{name: "form in chunks, bare LF behind the size", request: func(s shot) string {
			return strings.ReplaceAll(chunked(9, ";", "", token)(s), ";\r\n", "\n")
		}, want: "C444CC"},
		inForm("form in chunks, spaces behind the size", chunked(9, "  ", "", token)),
		{name: "form in chunks that end early", request: func(s shot) string {
			return strings.Replace(chunked(9, "", "", token)(s), "0\r\n\r\n", "0\r\n\r\n"+"access_token="+s.token, 1)
		}, want: inPlace},
		{name: "form in chunks and a length", request: chunked(50, "", "", token, "Content-Length: 3"), want: inPlace},
		{name: "GET with a form", request: send("GET", token, urlencoded), want: "O4G4OO"},
		{name: "GET with a form in chunks", request: func(s shot) string {
			return strings.Replace(chunked(9, "", "", token)(s), "POST", "GET", 1)
		}, want: "O4G4OO"},
		{name: "HEAD with a form", request: send("HEAD", token, urlencoded), want: "O4G4OO"},
		{name: "PUT without a type", request: send("PUT", token), want: nowhere},
		{name: "text/plain", request: body(token, "Content-Type: text/plain"), want: nowhere},
		{name: "JSON", request: body(`{"access_token":"$T"}`, "Content-Type: application/json"), want: nowhere},
		{name: "multipart", request: body(multipart, "Content-Type: multipart/form-data; boundary=b"), want: "OUUUOO"},
		{name: "multipart, another kind", request: body(multipart, "Content-Type: Multipart/Mixed; boundary=b"), want: "OUUUOO"},
		{name: "form, UTF-16", request: body(token, "Content-Type: application/x-www-form-urlencoded; charset=utf-16"), want: "OUUUOO"},
		{name: "form, UTF-7", request: body(token, "Content-Type: application/x-www-form-urlencoded; charset=utf-7"), want: "OUUUOO"},
		{name: "form, deflate said", request: form(token, "Content-Encoding: deflate"), want: "OUUUOO"},
		{name: "form, several codings", request: form(token, "Content-Encoding: identity", "Content-Encoding: gzip"), want: "OUUUOO"},
		{name: "form, gzip", request: func(s shot) string {
			var b bytes.Buffer
			w := gzip.NewWriter(&b)
			_, _ = w.Write([]byte(s.fill(token)))
			_ = w.Close()
			return form(b.String(), "Content-Encoding: gzip")(s)
		}, want: "GUUUGG"}, // it arrives, compressed
		{name: "form, two types", request: form(token, "Content-Type: text/plain"), want: "O444OO"},
		{name: "form, list of types", request: body(token, "Content-Type: text/plain, application/x-www-form-urlencoded"), want: "O444OO"},
		{name: "form, type with garbage", request: body(token, "Content-Type: application/x-www-form-urlencoded/x"), want: "O444OO"},
		{name: "form, too long", request: form(token + "&a=" + big), want: "OTTTOO"},
		{name: "form, too long, token last", request: form("a=" + big + "&" + token), want: "OTTTOO"},
		{name: "form in chunks, too long, token last", request: chunked(4096, "", "", "a="+big+"&"+token), want: "OTTTOO"},
	}
	for _, content := range []string{
		"ACCESS_TOKEN=$T", "access_token[]=$T", "a=b;access_token=$T", "access.token=$T", "access+token=$T", "access_token%00=$T", "\r\naccess_token=$T", "%u0061ccess_token=$T",
		"\ufeffaccess_token=$T", "access_token%5B%5D=$T", "a\x00;access_token=$T",
	} {
		rows = append(rows, attack{name: fmt.Sprintf("form %q", content), request: form(content), want: badPlace})
	}
	for _, content := range []string{"access_token=$L&access_token=$T", "access_token=$T&access_token=$L", "access_token=&access_token=$T", "access_token=Bearer+$T", "access_token=$T%0D%0A", "access_token=$T\r\n", "access_token=%22$T%22"} {
		rows = append(rows, attack{name: fmt.Sprintf("form %q", content), request: form(content), want: "O4G4OO"})
	}
	return rows
}

// framingAttacks are about where a request ends.
func framingAttacks() []attack {
	const auth = "Authorization: Bearer $T\r\n"
	smuggled := "GET /api/$ID/smuggled HTTP/1.1\r\nHost: $HOST\r\n" + auth + "\r\n"
	first := "GET /api/" + otherID + " HTTP/1.1\r\nHost: $HOST\r\n"
	trailer := func(announced, trailer string) wire {
		lines := []string{}
		if announced != "" {
			lines = append(lines, "Trailer: "+announced)
		}
		return chunked(4, "", trailer, "a=b", lines...)
	}
	post := func(lines, content string) wire {
		return text("POST /api/$ID HTTP/1.1\r\nHost: $HOST\r\nContent-Type: text/plain\r\n" + lines + "\r\n" + content)
	}
	before := func(lines, content string) wire {
		return text("POST /api/" + otherID + " HTTP/1.1\r\nHost: $HOST\r\nContent-Type: text/plain\r\n" + lines + "\r\n" + content)
	}
	return []attack{
		{name: "second of two pipelined requests", answers: 2, request: text(first + "\r\n" + smuggled), want: inHeader},
		{name: "pipelined behind a live one", answers: 2, request: text(first + "Authorization: Bearer $L\r\n\r\n" + smuggled), want: inHeader},
		{name: "behind a body of no length", answers: 2, request: before("Content-Length: 0\r\n", smuggled), want: inHeader},
		{name: "in a body with both framings", answers: 2, request: before("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"+smuggled), want: inHeader},
		{name: "in a body with both framings, the other order", answers: 2, request: before("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", "0\r\n\r\n"+smuggled), want: inHeader},
		{name: "Expect: 100-continue", request: post(auth+"Expect: 100-continue\r\nContent-Length: 5\r\n", "hello"), want: inHeader},
		{name: "Expect: something else", request: post(auth+"Expect: 200-ok\r\nContent-Length: 5\r\n", "hello"), want: byCaddy},
		{name: "Transfer-Encoding: xchunked", request: post(auth+"Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"), want: byCaddy},
		{name: "Transfer-Encoding: chunked, identity", request: post(auth+"Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"), want: byCaddy},
		{name: "Transfer-Encoding: gzip, chunked", request: post(auth+"Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), want: byCaddy},
		{name: "Transfer-Encoding twice", request: post(auth+"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), want: byCaddy},
		{name: "Transfer-Encoding with a vertical tab", request: post(auth+"Transfer-Encoding: \vchunked\r\n", "0\r\n\r\n"), want: byCaddy},
		{name: "Transfer-Encoding before the colon", request: post(auth+"Transfer-Encoding : chunked\r\n", "0\r\n\r\n"), want: byCaddy},
		{name: "two lengths", request: post(auth+"Content-Length: 0\r\nContent-Length: 5\r\n", "hello"), want: byCaddy},
		{name: "a list of lengths", request: post(auth+"Content-Length: 5, 5\r\n", "hello"), want: byCaddy},
		{name: "length with a sign", request: post(auth+"Content-Length: +5\r\n", "hello"), want: byCaddy},
		{name: "length in hex", request: post(auth+"Content-Length: 0x5\r\n", "hello"), want: byCaddy},
		{name: "chunk size that overflows", answers: 2, request: before("Transfer-Encoding: chunked\r\n", "10000000000000000\r\n"+smuggled), want: byCaddy},
		{name: "chunk size with a sign", answers: 2, request: before("Transfer-Encoding: chunked\r\n", "-1\r\n"+smuggled), want: byCaddy},
		{name: "chunks of HTTP/1.0", request: text("POST /api/$ID HTTP/1.0\r\nHost: $HOST\r\n" + auth + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), want: inHeader},
		{name: "trailer, announced", request: trailer("Authorization", auth), want: "44444O"},
		{name: "trailer, not announced", request: trailer("", auth), want: unheard},
		{name: "trailer, another one announced", request: trailer("X-Sum", auth), want: "G444GO"},
		{name: "trailer of another place", request: trailer("X-Access-Token", "X-Access-Token: $T\r\n"), want: "O444OO"},
		{name: "trailer of another place, not announced", request: trailer("X-Sum", "X-Access-Token: $T\r\n"), want: "O444OO"},
		{name: "trailer with cookies", request: trailer("Cookie", "Cookie: session=$T\r\n"), want: "O444OO"},
		{name: "line break in the target", request: text("GET /api/$ID\nAuthorization: Bearer $T HTTP/1.1\r\nHost: $HOST\r\n\r\n"), want: byCaddy},
		{name: "no version", request: text("GET /api/$ID\r\n" + auth + "\r\n"), want: byCaddy},
		{name: "version in lower case", request: text("GET /api/$ID http/1.1\r\nHost: $HOST\r\n" + auth + "\r\n"), want: byCaddy},
		{name: "HTTP/1.2", request: text("GET /api/$ID HTTP/1.2\r\nHost: $HOST\r\n" + auth + "\r\n"), want: inHeader},
		{name: "HTTP/3.0 by name", request: text("GET /api/$ID HTTP/3.0\r\nHost: $HOST\r\n" + auth + "\r\n"), want: byCaddy},
		{name: "no host", request: text("GET /api/$ID HTTP/1.1\r\n" + auth + "\r\n"), want: byCaddy},
		{name: "two hosts", request: text(first + "Host: plain.test\r\n" + auth + "\r\n"), want: byCaddy},
		{name: "a header of 300 KiB", request: get("Authorization: Bearer "+strings.Repeat("a", 300<<10), "X-Token: $T"), want: "NNO4NOON"},
		{name: "a header of 1.2 MiB", request: get("Authorization: Bearer "+strings.Repeat("a", 1200<<10), "X-Token: $T"), want: byCaddy},
	}
}

// pathAttacks are about reaching a protected path, or host, by another name.
func pathAttacks() []attack {
	const auth = "Authorization: Bearer $T"
	rows := []attack{
		{name: "absolute form", request: target("GET", "http://$HOST/api/$ID", auth), want: inHeader},
		{name: "absolute form, another host in the field", request: text("GET http://$HOST/api/$ID HTTP/1.1\r\nHost: plain.test\r\n" + auth + "\r\n\r\n"), want: inHeader},
		{name: "absolute form of another scheme", request: target("GET", "HTTPS://$HOST/api/$ID", auth), want: inHeader},
		{name: "two slashes as an authority", request: target("GET", "//plain.test/api/$ID", auth), want: inHeader},
		{name: "host in upper case", request: func(s shot) string { s.host = strings.ToUpper(s.host); return get(auth)(s) }, want: inHeader},
		{name: "host with a port", request: func(s shot) string { s.host += ":99"; return get(auth)(s) }, want: inHeader},
		{name: "host with a dot at its end", request: func(s shot) string { s.host += "."; return get(auth)(s) }, want: byCaddy},
		{name: "host with a user", request: func(s shot) string { s.host = "plain.test@" + s.host; return get(auth)(s) }, want: byCaddy},
		{name: "host with a space", request: func(s shot) string { s.host += " plain.test"; return get(auth)(s) }, want: byCaddy},
		{name: "X-Forwarded-Host", request: get("X-Forwarded-Host: plain.test", "X-Original-URL: /public", "X-Rewrite-URL: /public", auth), want: inHeader},
		{name: "CONNECT", request: text("CONNECT $HOST:80 HTTP/1.1\r\nHost: plain.test\r\nX-Id: $ID\r\n" + auth + "\r\n\r\n"), want: inHeader},
		{name: "absolute form with a password", request: target("GET", "http://u:$L@$HOST/api/$ID", auth), want: inHeader},
		{name: "asterisk", request: text("OPTIONS * HTTP/1.1\r\nHost: $HOST\r\nX-Id: $ID\r\n" + auth + "\r\n\r\n"), want: byCaddy},
	}
	// Ways to /api/x that matchers of Caddy see through: the denylist of
	// pathsHost is on /api/* only.
	for _, path := range []string{
		"/api/$ID", "/API/$ID", "//api/$ID", "///api//$ID", "/./api/$ID", "/x/../api/$ID", "/api/../api/$ID", "/%61pi/$ID", "/%2e/api/$ID", "/x/%2e%2e/api/$ID", "/x/..%2fapi/$ID",
		"/api%2f$ID", "/api/%2e%2e/api/$ID", "/%2fapi/$ID", "/x/../../../api/$ID", "/api/x/../$ID", "/api/;x/$ID",
	} {
		rows = append(rows, attack{name: "path " + path, on: pathsHost, request: target("GET", path, auth), want: "JO"})
	}
	// The other way round: everything but /public/* is protected.
	for _, path := range []string{
		"/public/../api/$ID", "/public/%2e%2e/api/$ID", "/public/..%2fapi/$ID", "/public%2f..%2fapi/$ID", "/public//../api/$ID", "/PUBLIC/../api/$ID", "/public/./../api/$ID", "//public/../api/$ID", "/public/x/../../api/$ID",
	} {
		rows = append(rows, attack{name: "not public " + path, on: publicHost, request: target("GET", path, auth), want: "JO"})
	}
	// What Caddy's matchers do not see through, and some servers behind it do:
	// parameters of segments, other separators, escapes of escapes. Whoever
	// protects by path has to know; whoever protects the site does not.
	for _, path := range []string{"/x/..;/api/$ID", "/api;x/$ID", "/x%5c..%5capi/$ID", "/%2561pi/$ID", "/api\u2215$ID", "/api$ID"} {
		rows = append(rows, attack{name: "path " + path, on: pathsHost, request: target("GET", path, auth), want: "OO"})
	}
	for _, path := range []string{"/public/..;/api/$ID", "/public/..%5capi/$ID", "/public/%252e%252e/api/$ID"} {
		rows = append(rows, attack{name: "not public " + path, on: publicHost, request: target("GET", path, auth), want: "OO"})
	}
	return rows
}
