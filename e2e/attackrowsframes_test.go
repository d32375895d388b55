//go:build e2e

package e2e

import (
	"fmt"
	"slices"
	"strings"
)

// frameAttacks are about HTTP/2 and HTTP/3.
func frameAttacks() []attack {
	var rows []attack
	type fields = [][2]string
	pseudo := fields{{":method", "GET"}, {":scheme", "https"}, {":authority", "$HOST"}, {":path", "/api/$ID"}}
	with := func(more ...[2]string) fields { return slices.Concat(pseudo, more) }
	changed := func(name, value string, more ...[2]string) fields {
		changed := slices.Clone(pseudo)
		for i := range changed {
			if changed[i][0] == name {
				changed[i][1] = value
			}
		}
		return append(changed, more...)
	}
	auth := [2]string{"authorization", "Bearer $T"}
	urlencoded := [2]string{"content-type", "application/x-www-form-urlencoded"}
	add := func(name, want string, f frames) {
		for i, proto := range []string{"h2", "h2c", "h3"} {
			f := f
			f.proto = proto
			want := want
			if list := strings.Split(want, " "); len(list) == 3 {
				want = list[i]
			}
			rows = append(rows, attack{name: name + " over " + proto, frames: &f, want: want})
		}
	}
	add("Bearer", inHeader, frames{fields: with(auth)})
	add("Bearer in many frames", inHeader, frames{fields: with(auth), split: true})
	add("Bearer, once more from the table of fields", inHeader, frames{fields: with([2]string{"x-more", "1"}, auth)})
	add("authorization twice", badHeader, frames{fields: with([2]string{"authorization", "Bearer $L"}, auth)})
	add("authorization twice, the other order", badHeader, frames{fields: with(auth, [2]string{"authorization", "Bearer $L"})})
	add("authorization with an empty one", badHeader, frames{fields: with([2]string{"authorization", ""}, auth)})
	add("upper case", byCaddy, frames{fields: with([2]string{"Authorization", "Bearer $T"})})
	add("authorization as a pseudo header", byCaddy, frames{fields: append(fields{{":authorization", "Bearer $T"}}, pseudo...)})
	add("authorization before the pseudo headers", byCaddy, frames{fields: append(fields{auth}, pseudo...)})
	add("scheme as the name", byCaddy, frames{fields: with([2]string{"authorization: bearer", "$T"})})
	add("connection", byCaddy, frames{fields: with([2]string{"connection", "authorization"}, auth)})
	add("proxy-connection", byCaddy, frames{fields: with([2]string{"proxy-connection", "authorization"}, auth)})
	add("transfer-encoding", byCaddy, frames{fields: with([2]string{"transfer-encoding", "chunked"}, auth)})
	add("te", inHeader, frames{fields: with([2]string{"te", "trailers"}, auth)})
	add("line break in a value", byCaddy, frames{fields: with([2]string{"x-other", "x\r\nAuthorization: Bearer $T"})})
	add("line feed in a value", byCaddy, frames{fields: with([2]string{"x-other", "x\nAuthorization: Bearer $T"})})
	add("carriage return in a value", byCaddy, frames{fields: with([2]string{"x-other", "x\rAuthorization: Bearer $T"})})
	add("line break in a name", byCaddy, frames{fields: with([2]string{"x\r\nauthorization", "Bearer $T"})})
	add("NUL in the value", byCaddy, frames{fields: with([2]string{"authorization", "Bearer $T\x00"})})
	add("line break behind the token", byCaddy, frames{fields: with([2]string{"authorization", "Bearer $T\r\n"})})
	add("empty name", byCaddy, frames{fields: with([2]string{"", "Bearer $T"}, auth)})
	add("tab behind the scheme", badHeader, frames{fields: with([2]string{"authorization", "Bearer\t$T"})})
	add("white space around", inHeader, frames{fields: with([2]string{"authorization", " Bearer $T "})})
	add("bytes above ASCII", badHeader, frames{fields: with([2]string{"authorization", "Bearer\u00a0$T"})})
	add("two paths", byCaddy, frames{fields: append(fields{{":path", "/public"}}, with(auth)...)})
	add("two methods", byCaddy, frames{fields: append(fields{{":method", "POST"}}, with(auth)...)})
	add("line break in the path", byCaddy, frames{fields: changed(":path", "/api/$ID HTTP/1.1\r\nAuthorization: Bearer $T\r\nX: x")})
	add("space in the path", inHeader, frames{fields: changed(":path", "/api/$ID x", auth)})
	add("absolute path", byCaddy, frames{fields: changed(":path", "http://plain.test/api/$ID", auth)})
	add("path without a slash", byCaddy, frames{fields: changed(":path", "api/$ID", auth)})
	add("method with a space", byCaddy, frames{fields: changed(":method", "GET / HTTP/1.1", auth)})
	add("host beside the authority", "CCCCCO", frames{fields: with([2]string{"host", "plain.test"}, auth)})
	add("authority of two", byCaddy, frames{fields: changed(":authority", "$HOST, plain.test", auth)})
	add("unknown pseudo header", byCaddy, frames{fields: append(fields{{":token", "$T"}}, with(auth)...)})
	add("query", inQuery, frames{fields: changed(":path", "/api/$ID?access_token=$T")})
	add("cookie crumbs", inPlace, frames{fields: with([2]string{"cookie", "a=b"}, [2]string{"cookie", "session=$T"}, [2]string{"cookie", "c=d"})})
	add("two cookie crumbs", "O4G4OO", frames{fields: with([2]string{"cookie", "session=$L"}, [2]string{"cookie", "session=$T"})})
	add("a quote over two crumbs", badPlace, frames{fields: with([2]string{"cookie", "a=\"b"}, [2]string{"cookie", "session=$T\""})})
	add("another header twice", "O4G4OO", frames{fields: with([2]string{"x-access-token", "$L"}, [2]string{"x-access-token", "$T"})})
	add("underscores", unheard, frames{fields: with([2]string{"x_access_token", "$T"})})
	add("form", inPlace, frames{fields: changed(":method", "POST", urlencoded), body: "access_token=$T"})
	add("form in many frames", inPlace, frames{fields: changed(":method", "POST", urlencoded), body: "access_token=$T", split: true})
	add("GET with a form", "O4G4OO", frames{fields: with(urlencoded), body: "access_token=$T"})
	add("form and another length", byCaddy, frames{fields: changed(":method", "POST", urlencoded, [2]string{"content-length", "3"}), body: "access_token=$T"})
	add("trailer", unheard+" "+unheard+" C444CC", frames{fields: changed(":method", "POST", urlencoded), body: "a=b", trailer: fields{auth}})
	add("trailer, announced", byCaddy+" "+byCaddy+" 44444C", frames{fields: changed(":method", "POST", urlencoded, [2]string{"trailer", "authorization"}), body: "a=b", trailer: fields{auth}})
	add("trailer, another one announced", byCaddy+" "+byCaddy+" C444CC", frames{fields: changed(":method", "POST", urlencoded, [2]string{"trailer", "x-sum"}), body: "a=b", trailer: fields{{"x-sum", "1"}, auth}})
	add("trailer of another place", unheard, frames{fields: changed(":method", "POST", urlencoded, [2]string{"trailer", "x-sum"}), body: "a=b", trailer: fields{{"x-access-token", "$T"}}})
	add("extended CONNECT", byCaddy+" "+byCaddy+" "+inHeader, frames{fields: fields{{":method", "CONNECT"}, {":protocol", "websocket"}, {":scheme", "https"}, {":authority", "$HOST"}, {":path", "/api/$ID"}, auth}})
	add("CONNECT", inHeader, frames{fields: fields{{":method", "CONNECT"}, {":authority", "$HOST"}, {"x-id", "$ID"}, auth}})
	add("authorization without a scheme", inHeader, frames{fields: with([2]string{"authorization", "$T"})})
	for _, value := range []string{"Token $T", "Bearer $L, $T", "bearer $L,Bearer $T"} {
		add(fmt.Sprintf("authorization %q", value), badHeader, frames{fields: with([2]string{"authorization", value})})
	}
	return rows
}
