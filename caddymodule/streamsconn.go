package caddymodule

import (
	"context"
	"net"
	"time"
)

type connKey struct{}

// withConn remembers the connection in the context of its requests.
func withConn(ctx context.Context, c net.Conn) context.Context {
	if ctx.Value(connKey{}) != nil {
		return ctx // several handlers asked for it
	}
	return context.WithValue(ctx, connKey{}, c)
}

func connOf(ctx context.Context) net.Conn {
	c, _ := ctx.Value(connKey{}).(net.Conn)
	return c
}

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)

// abort closes a connection at once, so that the peer can tell: it gets a reset,
// not the end of file that would end a response without a length. It never
// blocks. TLS would first wait for its alert to be written.
func abort(c net.Conn) {
	for {
		switch inner := c.(type) {
		case *net.TCPConn:
			_ = inner.SetLinger(0)
			_ = inner.Close()
			return
		case *net.UnixConn:
			_ = inner.Close()
			return
		case interface{ NetConn() net.Conn }: // a *tls.Conn, among others
			c = inner.NetConn()
		case interface{ Raw() net.Conn }: // of the PROXY protocol
			c = inner.Raw()
		default:
			// A wrapper of which nothing is known: it may want to write before it
			// closes.
			_ = c.SetDeadline(longAgo)
			go func() { _ = c.Close() }()
			return
		}
	}
}
