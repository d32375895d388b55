// A server that answers with every access token that it can find in the request,
// read in the ways in which servers for Node are usually written. Each line of the
// answer is a place, a way of reading it, and what was read, as JSON:
//
//	cookie	split	"eyJ…"
//
// Only Node's own modules: the libraries have their ways from there.

import http from "node:http"
import querystring from "node:querystring"
import { parse as parseURL } from "node:url"

const name = "access_token"

const decode = text => {
	try {
		return decodeURIComponent(text)
	} catch {
		return text
	}
}

const unquote = text => text?.startsWith('"') ? text.slice(1, -1) : text

// What is in the Authorization field: by those who know the scheme, and "blind" by
// those who don't look at it.
const authorization = {
	replaced: v => v.replace("Bearer ", ""),
	replacedInAnyCase: v => v.replace(/^bearer\s+/i, ""),
	split: v => v.split("Bearer ")[1],
	prefix: v => v.startsWith("Bearer ") ? v.slice(7) : undefined,
	prefixInAnyCase: v => /^bearer /i.test(v) ? v.slice(7).trim() : undefined,
	anywhere: v => v.match(/bearer\s+(\S+)/i)?.[1],
	words: v => {
		const [scheme, token] = v.trim().split(/\s+/)
		return /^(bearer|dpop)$/i.test(scheme) ? token : undefined
	},
	"blind second": v => v.split(" ")[1],
	"blind last": v => v.split(" ").pop(),
	"blind cut": v => v.slice(7),
}

const cookie = {
	// as the package cookie does
	package: line => {
		for (const part of line.split(";")) {
			const at = part.indexOf("=")
			if (at >= 0 && part.slice(0, at).trim() === name) return decode(unquote(part.slice(at + 1).trim()))
		}
	},
	// as it did once
	commas: line => {
		for (const part of line.split(/[;,] */)) {
			const at = part.indexOf("=")
			if (at >= 0 && part.slice(0, at).trim() === name) return decode(unquote(part.slice(at + 1).trim()))
		}
	},
	object: line => Object.fromEntries(line.split("; ").map(part => part.split("=")))[name],
	trimmed: line => Object.fromEntries(line.split(";").map(part => part.trim().split("=").map(decode)))[name],
	find: line => line.split(";").map(part => part.trim()).find(part => part.startsWith(name + "="))?.split("=")[1],
	expression: line => line.match(/(?:^|;)\s*access_token=([^;]*)/)?.[1],
	expressionWithSpaces: line => line.match(/(?:^|;)\s*access_token\s*=\s*"?([^;"]*)/)?.[1],
	querystring: line => querystring.parse(line, "; ")[name],
	// as W3Schools has it
	decodedFirst: line => decode(line).split(";").map(part => part.trimStart()).find(part => part.startsWith(name + "="))?.slice(name.length + 1),
}

const pairs = {
	querystring: text => querystring.parse(text)[name],
	either: text => querystring.parse(text.replaceAll(";", "&"))[name],
	searchParams: text => new URLSearchParams(text).getAll(name),
	split: text => text.split("&").map(pair => pair.split("=")).filter(([key]) => key === name).map(([, value]) => decode(value)),
	decoded: text => text.split("&").map(pair => pair.split("=").map(decode)).filter(([key]) => key.trim() === name).map(([, value]) => value),
	// as the package qs makes a list of them
	brackets: text => [...new URLSearchParams(text)].filter(([key]) => key.replace(/\[.*$/, "") === name).map(([, value]) => value),
	expression: text => decode(text.match(/(?:^|[&;])access_token=([^&;]*)/)?.[1] ?? ""),
}

const queries = {
	search: url => new URL(url, "http://receiver").search.slice(1),
	legacy: url => parseURL(url).query ?? "",
	first: url => url.split("?")[1] ?? "",
	rest: url => url.includes("?") ? url.slice(url.indexOf("?") + 1) : "",
	last: url => url.includes("?") ? url.split("?").pop() : "",
}

// texts returns the body as a form, once for each encoding it may be in.
const texts = (request, body) => {
	const type = request.headers["content-type"]
	if (type === undefined ? request.method !== "POST" : !/x-www-form-urlencoded/i.test(type)) return []
	const found = [body.toString("utf8"), body.toString("latin1")]
	const charset = type?.match(/charset\s*=\s*"?([\w-]+)/i)?.[1]
	try {
		if (charset) found.push(new TextDecoder(charset).decode(body))
	} catch {
		// an unknown one
	}
	return found
}

const sightings = async (request, body) => {
	const lines = []
	const saw = (place, way, value) => {
		for (const one of [value].flat()) if (one) lines.push(`${place}\t${way}\t${JSON.stringify(one)}`)
	}
	const attempt = (place, ways, text, prefix = "") => {
		for (const [way, read] of Object.entries(ways)) {
			try {
				saw(place, prefix + way, read(text))
			} catch {
				// such a server answers with 500
			}
		}
	}
	const fields = []
	for (const list of [request.rawHeaders, request.rawTrailers])
		for (let i = 0; i < list.length; i += 2) fields.push([list[i].toLowerCase(), list[i + 1]])
	for (const [field, value] of [...Object.entries(request.headers), ...Object.entries(request.trailers), ...fields]) {
		if (field === "authorization") {
			saw("authorization", "raw", value)
			attempt("authorization", authorization, value)
		}
		if (field.replaceAll("_", "-") === "x-access-token") saw("header", field, value)
		if (field === "cookie") attempt("cookie", cookie, value)
	}
	saw("query", "expression", decode(request.url.match(/[?&]access_token=([^&#]*)/)?.[1] ?? ""))
	for (const [how, query] of Object.entries(queries)) {
		try {
			attempt("query", pairs, query(request.url), how + " ")
		} catch {
			// not a URL
		}
	}
	for (const text of texts(request, body)) attempt("form", pairs, text)
	const type = request.headers["content-type"]
	if (/multipart\//i.test(type ?? "")) {
		try {
			saw("form", "parts", (await new Response(body, { headers: { "content-type": type } }).formData()).getAll(name))
		} catch {
			// not in parts
		}
	}
	return lines.join("\n") + "\n"
}

http.createServer({ keepAliveTimeout: 600_000, maxHeaderSize: 256 * 1024 }, async (request, response) => {
	const chunks = []
	try {
		for await (const chunk of request) chunks.push(chunk)
	} catch {
		return // it was broken off
	}
	response.setHeader("X-Receiver", "node")
	response.end(await sightings(request, Buffer.concat(chunks)))
}).listen(0, "127.0.0.1", function () {
	console.log(JSON.stringify({ port: this.address().port }))
})

// The test that started this ends it by closing its standard input.
process.stdin.on("end", () => process.exit()).resume()
