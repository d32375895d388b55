package revocationtest

import (
	"net"
	"sync"
	"testing"
)

// Proxy is a TCP proxy on a loopback port that can lose its connections, refuse
// new ones, and freeze: a frozen proxy keeps every connection open and moves no
// byte, as a network does that drops packets. What was sent meanwhile arrives
// when it thaws.
type Proxy struct {
	target   string
	listener net.Listener
	wg       sync.WaitGroup

	mu      sync.Mutex
	thawed  *sync.Cond
	frozen  bool
	refuse  bool
	closed  bool
	conns   map[net.Conn]struct{}
	dialled int
}

// StartProxy returns a proxy to the address target, which is closed when the
// test ends.
func StartProxy(tb testing.TB, target string) *Proxy {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatalf("listening for the proxy: %v", err)
	}
	p := &Proxy{target: target, listener: l, conns: map[net.Conn]struct{}{}}
	p.thawed = sync.NewCond(&p.mu)
	p.wg.Go(p.accept)
	tb.Cleanup(p.close)
	return p
}

// Addr returns the address that the proxy listens on.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Freeze stops all traffic, without closing anything.
func (p *Proxy) Freeze() { p.set(func() { p.frozen = true }) }

// Thaw lets traffic flow again.
func (p *Proxy) Thaw() { p.set(func() { p.frozen = false }) }

// Refuse closes all connections, and new ones at once, until Allow.
func (p *Proxy) Refuse() {
	p.set(func() { p.refuse = true })
	p.Drop()
}

// Allow lets new connections in again.
func (p *Proxy) Allow() { p.set(func() { p.refuse = false }) }

// Drop closes all connections. New ones are accepted.
func (p *Proxy) Drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

// Dialled returns how many connections came in so far.
func (p *Proxy) Dialled() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dialled
}

func (p *Proxy) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
	p.thawed.Broadcast()
}

func (p *Proxy) close() {
	p.set(func() { p.closed = true })
	_ = p.listener.Close()
	p.Drop()
	p.wg.Wait()
}

func (p *Proxy) accept() {
	for {
		in, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.serve(in) })
	}
}

func (p *Proxy) serve(in net.Conn) {
	if !p.hold(in) {
		return
	}
	defer p.release(in)
	out, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	if !p.hold(out) {
		return
	}
	defer p.release(out)
	var wg sync.WaitGroup
	wg.Go(func() { p.pump(out, in) })
	wg.Go(func() { p.pump(in, out) })
	wg.Wait()
}

// hold registers a connection, or closes it.
func (p *Proxy) hold(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dialled++
	if p.closed || p.refuse {
		_ = c.Close()
		return false
	}
	p.conns[c] = struct{}{}
	return true
}

func (p *Proxy) release(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	_ = c.Close()
}

func (p *Proxy) pump(to, from net.Conn) {
	// The end of one direction ends the other.
	defer func() { _ = to.Close(); _ = from.Close() }()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		for p.frozen && !p.closed {
			p.thawed.Wait()
		}
		p.mu.Unlock()
		if n > 0 {
			if _, werr := to.Write(buf[:n]); werr != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
