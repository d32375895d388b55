//go:build e2e

package e2e

import (
	"encoding/base64"
	"fmt"
	"strings"
)

// headerAttacks are about the Authorization field.
func headerAttacks() []attack {
	rows := []attack{
		{name: "Bearer", request: get("Authorization: Bearer $T"), want: inHeader},
		{name: "field name in another case", request: get("aUTHORIZATION: Bearer $T"), want: inHeader},
		{name: "no space after the colon", request: get("Authorization:Bearer $T"), want: inHeader},
		{name: "white space around the value", request: get("Authorization: \t  Bearer $T \t "), want: inHeader},
		{name: "DPoP", request: get("Authorization: DPoP $T"), want: inHeader},
		{name: "DPoP in lower case with two proofs", request: get("Authorization: dpop $T", "DPoP: a", "DPoP: b"), want: badHeader},
		{name: "100,000 spaces", request: get("Authorization: Bearer" + strings.Repeat(" ", 100_000) + "$T"), want: inHeader},
		{name: "behind 900 other fields", request: get(append(many(900), "Authorization: Bearer $T")...), want: inHeader},
		{name: "line folding before the token", request: get("Authorization: Bearer\r\n $T"), want: inHeader},
		{name: "line folding before the scheme", request: get("Authorization:\r\n\tBearer $T"), want: inHeader},
		{name: "line folding behind the token", request: get("Authorization: Bearer $T\r\n x"), want: badHeader},
		{name: "field in the folded line of another", request: get("X-Other: x\r\n Authorization: Bearer $T"), want: nowhere},
		{name: "beside an empty field", request: get("Authorization:", "Authorization: Bearer $T"), want: badHeader},
		{name: "before an empty field", request: get("Authorization: Bearer $T", "Authorization:"), want: badHeader},
		{name: "second of two fields", request: get("Authorization: Bearer $L", "Authorization: Bearer $T"), want: badHeader},
		{name: "first of two fields", request: get("Authorization: Bearer $T", "authorization: Bearer $L"), want: badHeader},
		{name: "the same twice", request: get("Authorization: Bearer $T", "Authorization: Bearer $T"), want: badHeader},
		{name: "behind Basic", request: get("Authorization: Basic dTpw", "Authorization: Bearer $T"), want: badHeader},
		{name: "a forged token first", request: get("Authorization: Bearer $L.x", "Authorization: Bearer $T"), want: badHeader},
		{name: "no token in the first field", request: get("Authorization: Bearer", "Authorization: Bearer $T"), want: badHeader},
		{name: "Proxy-Authorization", request: get("Proxy-Authorization: Bearer $T"), want: unheard},
		{name: "Authorization_", request: get("Authorization_: Bearer $T"), want: unheard},
		{name: "X-Original-Authorization", request: get("X-Original-Authorization: Bearer $T"), want: nowhere},
		{name: "Sec-WebSocket-Protocol", request: get("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Protocol: bearer, $T"), want: nowhere},
		{name: "WebSocket", request: get("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Authorization: Bearer $T"), want: inHeader},
		{name: "upgrade with a body", request: body("access_token=x", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Authorization: Bearer $T", "Content-Type: text/plain"), want: inHeader},
		{name: "upgrade to h2c", request: get("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA", "Authorization: Bearer $T"), want: inHeader},
		{name: "CORS preflight", request: target("OPTIONS", "/api/$ID", "Origin: https://app.test", "Access-Control-Request-Method: GET", "Authorization: Bearer $T"), want: inHeader},
		{name: "HTTP/1.0", request: text("GET /api/$ID HTTP/1.0\r\nHost: $HOST\r\nAuthorization: Bearer $T\r\n\r\n"), want: inHeader},
		{name: "HEAD", request: target("HEAD", "/api/$ID", "Authorization: Bearer $T"), want: inHeader},
		{name: "a method of one's own", request: target("STEAL", "/api/$ID", "Authorization: Bearer $T"), want: inHeader},
		{name: "bare LF", request: text("GET /api/$ID HTTP/1.1\nHost: $HOST\nAuthorization: Bearer $T\n\n"), want: inHeader},
		{name: "bare CR in another value", request: get("X-Other: x\rAuthorization: Bearer $T"), want: byCaddy},
		{name: "NUL behind the token", request: get("Authorization: Bearer $T\x00"), want: byCaddy},
		{name: "NUL in another value", request: get("X-Other: \x00", "Authorization: Bearer $T"), want: byCaddy},
		{name: "space before the colon", request: get("Authorization : Bearer $T"), want: byCaddy},
		{name: "space before the field name", request: text("GET /api/$ID HTTP/1.1\r\n Authorization: Bearer $T\r\nHost: $HOST\r\n\r\n"), want: byCaddy},
		{name: "tab in the field name", request: get("Authori\tzation: Bearer $T"), want: byCaddy},
		{name: "field name that is not ASCII", request: get("Authorization\u00a0: Bearer $T"), want: byCaddy},
	}
	for i, scheme := range []string{"bearer", "BEARER", "bEaReR"} {
		rows = append(rows, attack{name: "scheme " + scheme, request: get("Authorization: " + scheme + strings.Repeat(" ", 3*i+1) + "$T"), want: inHeader})
	}
	for _, value := range []string{
		"Bearer\t$T", "Bearer \t$T", "Bearer$T", "Bearer=$T", "Bearer:$T", "Bearer: $T", "Bearer,$T", "BearerX $T", "Bearer+$T", "Bearer%20$T",
		"Bearer \"$T\"", "Bearer '$T'", "Bearer <$T>", "Bearer $T,", "Bearer $T, $L", "Bearer $L, $T", "Bearer $L,Bearer $T", "Bearer $L Bearer $T",
		"Bearer $L $T", "Bearer token=$T", "Bearer token=\"$T\"", "Bearer bearer $T", "Bearer $T;x", "Bearer $T x", "Bearer $T\tx", "Bearer $L;$T",
		", Bearer $T", ",Bearer $T", "Basic dTpw, Bearer $T", "Basic dTpw Bearer $T", "Basic dTpw,bearer\t$T", "Digest a=\"b\", DPoP $T",
		"Bearer\u00a0$T", "Bearer\xa0$T", "Bearer \u00a0$T", "Bearer \ufeff$T", "\ufeffBearer $T", "Bearer\u2003$T", "Bearer $T\u00a0", "\"Bearer $T\"", "Bearer\v$T",
	} {
		row := attack{name: fmt.Sprintf("Authorization: %q", value), request: get("Authorization: " + value), want: badHeader}
		if strings.Contains(value, "\v") {
			row.want = byCaddy
		}
		rows = append(rows, row)
	}
	// Receivers that take whatever follows a space, or cut "Bearer " off where it is.
	rows = append(rows, attack{name: "Authorization without a scheme", request: get("Authorization: $T"), want: inHeader})
	for _, value := range []string{"Token $T", "JWT $T", "x $T", "OAuth $T", "Basic $T", "Token\t$T", "Token \"$T\"", "Token token=$T", "Token token=\"$T\", x=y", "X,$T", "Digest nonce=\"$T\"", "GNAP $T", "\"$T\"", "x=$T", "vapid $T", "vapid t=$T, k=x", "bearer.$T"} {
		rows = append(rows, attack{name: fmt.Sprintf("Authorization: %q", value), request: get("Authorization: " + value), want: badHeader})
	}
	return append(rows,
		attack{name: "Authorization: Basic that begins as a JWT does", request: get("Authorization: Basic "+base64.StdEncoding.EncodeToString([]byte(`{"alg":"x"}:y`)), "X-Token: $T"), want: nowhere},
	)
}

func many(n int) (lines []string) {
	for i := range n {
		lines = append(lines, fmt.Sprintf("X-Field-%d: %d", i, i))
	}
	return lines
}

// placeAttacks are about further headers, cookies, and several places at once.
func placeAttacks() []attack {
	var rows []attack
	add := func(want string, lines ...string) {
		rows = append(rows, attack{name: fmt.Sprintf("%q", lines), request: get(lines...), want: want})
	}
	add(inPlace, "X-Access-Token: $T")
	add(inPlace, "x-access-token: $T")
	add(inPlace, "X-Access-Token:   bearer   $T")
	for _, value := range []string{"Bearer$T", "Bearer\t$T", "$T,$L", "$L, $T", "\"$T\"", "Bearer $L, Bearer $T", "$T x", "Token $T"} {
		add("O4G4OO", "X-Access-Token: "+value)
	}
	add("O4G4OO", "X-Access-Token: $L", "X-Access-Token: $T")
	add("O4G4OO", "X-Access-Token:", "X-Access-Token: $T")
	for _, name := range []string{"X_Access_Token", "X-Access_Token", "x.access.token", "X_Access.Token"} {
		add(unheard, name+": $T")
	}
	rows = append(rows,
		attack{name: "underscores, where Caddy lets them through", on: underHost, request: get("X_Access_Token: $T"), want: "4G"},
		attack{name: "underscores beside hyphens, where Caddy lets them through", on: underHost, request: get("X_Access_Token: $T", "X-Access-Token: $L"), want: "4G"},
		attack{name: "Authorization, where Caddy lets underscores through", on: underHost, request: get("Authorization: Bearer $T"), want: "JO"},
	)
	add(inPlace, "Cookie: session=$T")
	add(inPlace, "Cookie: a=b;session=$T; c=d")
	add(inPlace, "Cookie: session=\"$T\"")
	add(inPlace, "Cookie: a=b", "Cookie: session=$T")
	add("O4G4OO", "Cookie: session=$L; session=$T")
	add("O4G4OO", "Cookie: session=$T", "Cookie: session=$L")
	add("O4G4OO", "Cookie: session=Bearer $T")
	add("O4G4OO", "Cookie: session=$P")
	for _, cookie := range []string{
		"Session=$T", "SESSION=$T", "a=b, session=$T", "a=b session=$T", "session =$T", "session= $T", "a=\"b; session=$T\"", "a=b\tsession=$T", "session=\"$T", "session=$T,x",
		"$Version=1; Session=$T", "%73ession=$T", "session%20=$T", "session[]=$T", "session[0]=$T", ";session[=$T", "a;session\t=$T",
	} {
		want := badPlace
		switch cookie {
		case "session= $T", "session=\"$T", "session=$T,x":
			want = "O4G4OO"
		}
		add(want, "Cookie: "+cookie)
	}
	// Two places: whatever is in the other one.
	for _, pair := range [][2]string{{"$L", "$T"}, {"$T", "$L"}, {"$T", "$T"}} {
		a, b := pair[0], pair[1]
		other := "O4G4OO" // neither is a place by default
		beside := "J4G4JO"
		if a == "$L" {
			beside = "O4G4OO" // the second one is not looked at where it is no place
		}
		add(beside, "Authorization: Bearer "+a, "X-Access-Token: "+b)
		add(beside, "X-Access-Token: "+b, "Authorization: Bearer "+a)
		add(beside, "Authorization: Bearer "+a, "Cookie: session="+b)
		add(other, "X-Access-Token: "+a, "Cookie: session="+b)
		rows = append(rows,
			attack{name: "header and query " + a + b, request: query("access_token="+b, "Authorization: Bearer "+a), want: "44G44O"},
			attack{name: "cookie and query " + a + b, request: query("access_token="+b, "Cookie: session="+a), want: "44G44O"},
			attack{name: "header and form " + a + b, request: form("access_token="+b, "Authorization: Bearer "+a), want: beside},
			attack{name: "cookie and form " + a + b, request: form("access_token="+b, "Cookie: session="+a), want: other},
			attack{name: "all places " + a + b, request: func(s shot) string {
				return strings.Replace(form("access_token="+b, "Authorization: Bearer "+a, "X-Access-Token: "+b, "Cookie: session="+a)(s), " HTTP/1.1", "?access_token="+s.fill(b)+" HTTP/1.1", 1)
			}, want: "44G44O"},
		)
	}
	add(inPlace, "Authorization: Basic dTpw", "X-Access-Token: $T")
	// Fields that a proxy drops on the way.
	for _, option := range []string{"Authorization", "authorization", "close, Authorization", "keep-alive,\tAUTHORIZATION ,x", "Authorization\r\nConnection: close", "Upgrade, Authorization\r\nUpgrade: websocket"} {
		rows = append(rows, attack{name: fmt.Sprintf("Connection: %q", option), request: get("Connection: "+option, "Authorization: Bearer $T"), want: "44444G"})
	}
	add("G444GG", "Connection: X-Access-Token", "X-Access-Token: $T")
	add("G444GG", "Connection: x-access-token", "X-Access-Token: $T")
	add("G444GG", "Connection: Cookie", "Cookie: session=$T")
	add("J444JO", "Connection: X-Access-Token", "Authorization: Bearer $T")
	add(inHeader, "Proxy-Connection: Authorization", "Authorization: Bearer $T")
	add(inHeader, "Keep-Alive: Authorization", "Authorization: Bearer $T")
	add(inHeader, "Connection: \"Authorization\"", "Authorization: Bearer $T")
	return rows
}

// queryAttacks are about the query.
func queryAttacks() []attack {
	var rows []attack
	add := func(q, want string) {
		rows = append(rows, attack{name: "query " + q, request: query(q), want: want})
	}
	for _, q := range []string{"access_token=$T", "a=b&access_token=$T&c=d", "access%5Ftoken=$T", "%61ccess_token=$T", "access_token=$P", "&&access_token=$T"} {
		add(q, inQuery)
	}
	for _, q := range []string{
		"ACCESS_TOKEN=$T", "Access_Token=$T", "access_token[]=$T", "access_token[0]=$T", "access_token%5B%5D=$T", "access.token=$T", "access+token=$T", "access%20token=$T",
		"a;access_token=$T", "a=b;access_token=$T", "access_token=$T;", "?access_token=$T", "%3Faccess_token=$T", "+access_token=$T", "%20access_token=$T", "access_token%00=$T", "access_token%20=$T",
		"%EF%BB%BFaccess_token=$T", "acce%C5%BFs_token=$T", "%u0061ccess_token=$T", "access_token%5Bx=$T", "[access_token]=$T",
	} {
		add(q, badQuery)
	}
	for _, q := range []string{"access_token=$T&access_token=$L", "access_token=$L&access_token=$T", "access_token=&access_token=$T", "access_token=Bearer%20$T", "access_token=Bearer+$T", "access_token=$T%0A", "access_token=%0D$T", "access_token=$T%00", "access_token=%22$T%22", "access_token=$T,$L", "access_token=$T%2C"} {
		add(q, "44G44O")
	}
	for _, q := range []string{"access_token_=$T", "xaccess_token=$T", "token=$T", "%2561ccess_token=$T", "$T", "a=access_token=$T", "=access_token=$T", "a=%26access_token=$T"} {
		add(q, nowhere)
	}
	return append(rows,
		attack{name: "query of an absolute form", request: target("GET", "http://$HOST/api/$ID?access_token=$T"), want: inQuery},
		attack{name: "query behind a fragment", request: target("GET", "/api/$ID#x?access_token=$T"), want: inQuery},
		attack{name: "parameter of the path", request: target("GET", "/api/$ID;access_token=$T"), want: nowhere},
		attack{name: "query of a POST with a form", request: func(s shot) string {
			return strings.Replace(form("a=b")(s), " HTTP/1.1", "?access_token="+s.token+" HTTP/1.1", 1)
		}, want: inQuery},
	)
}
