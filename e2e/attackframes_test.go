//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// frames is a request of HTTP/2 or HTTP/3. It is written by hand, since clients
// refuse to send most of what is of interest here.
type frames struct {
	proto   string // h2 over TLS, h2c, or h3
	fields  [][2]string
	body    string
	trailer [][2]string
	split   bool // over as many frames as there are bytes, where the protocol can
}

// framer is a connection of one of these protocols.
type framer interface {
	ask(f *frames, s shot) (reply, error) // the error says that the connection is done for
	close()
}

func (p *player) playFrames(f *frames, s shot) reply {
	var got reply
	for range 2 { // an earlier row may have ended the connection
		c, kept := p.framed[f.proto]
		if !kept {
			var err error
			if c, err = p.dialFrames(f.proto); err != nil {
				return reply{err: err}
			}
			if p.framed == nil {
				p.framed = map[string]framer{}
			}
			p.framed[f.proto] = c
		}
		var err error
		if got, err = c.ask(f, s); err == nil {
			return got
		}
		c.close()
		delete(p.framed, f.proto)
		got.err = err
		if !kept {
			break
		}
	}
	return got
}

func (p *player) dialFrames(proto string) (framer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	config := &tls.Config{RootCAs: p.ca, ServerName: "plain.test", NextProtos: []string{proto}}
	switch proto {
	case "h3":
		conn, err := quic.DialAddr(ctx, p.tls, config, nil)
		if err != nil {
			return nil, err
		}
		control, err := conn.OpenUniStream()
		if err != nil {
			return nil, err
		}
		// A control stream with empty settings (RFC 9114, section 6.2.1).
		if _, err := control.Write([]byte{0, 4, 0}); err != nil {
			return nil, err
		}
		return &http3Framer{conn}, nil
	case "h2":
		conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", p.tls)
		if err != nil {
			return nil, err
		}
		return newHTTP2Framer(conn)
	default:
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", p.edge.address)
		if err != nil {
			return nil, err
		}
		return newHTTP2Framer(conn)
	}
}

type http2Framer struct {
	conn   net.Conn
	framer *http2.Framer
	block  bytes.Buffer
	hpack  *hpack.Encoder
	stream uint32
}

func newHTTP2Framer(conn net.Conn) (framer, error) {
	f := &http2Framer{conn: conn, framer: http2.NewFramer(conn, conn), stream: 1}
	f.framer.AllowIllegalWrites = true
	f.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	f.hpack = hpack.NewEncoder(&f.block)
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return nil, err
	}
	return f, f.framer.WriteSettings()
}

func (f *http2Framer) close() { _ = f.conn.Close() }

func (f *http2Framer) ask(q *frames, s shot) (reply, error) {
	_ = f.conn.SetDeadline(time.Now().Add(30 * time.Second))
	stream := f.stream
	f.stream += 2
	plain := q.body == "" && len(q.trailer) == 0
	if err := f.headers(stream, q.fields, s, plain, q.split); err != nil {
		return reply{}, err
	}
	if q.body != "" {
		if err := f.framer.WriteData(stream, len(q.trailer) == 0, []byte(s.fill(q.body))); err != nil {
			return reply{}, err
		}
	}
	if len(q.trailer) > 0 {
		if err := f.headers(stream, q.trailer, s, true, false); err != nil {
			return reply{}, err
		}
	}
	return f.answer(stream)
}

func (f *http2Framer) headers(stream uint32, fields [][2]string, s shot, end, split bool) error {
	f.block.Reset()
	for _, field := range fields {
		if err := f.hpack.WriteField(hpack.HeaderField{Name: s.fill(field[0]), Value: s.fill(field[1])}); err != nil {
			return err
		}
	}
	block := f.block.Bytes()
	piece := 16 << 10
	if split {
		piece = 97
	}
	first := min(piece, len(block))
	err := f.framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: stream, BlockFragment: block[:first], EndStream: end, EndHeaders: first == len(block),
	})
	for block = block[first:]; err == nil && len(block) > 0; {
		n := min(piece, len(block))
		err = f.framer.WriteContinuation(stream, n == len(block), block[:n])
		block = block[n:]
	}
	return err
}

func (f *http2Framer) answer(stream uint32) (got reply, err error) {
	for {
		frame, err := f.framer.ReadFrame()
		if err != nil {
			return got, err
		}
		ended := false
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				err = f.framer.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !frame.IsAck() {
				err = f.framer.WritePing(true, frame.Data)
			}
		case *http2.MetaHeadersFrame:
			if frame.StreamID != stream {
				continue
			}
			for _, field := range frame.Fields {
				got.add(field.Name, field.Value)
			}
			ended = frame.StreamEnded()
		case *http2.DataFrame:
			if n := len(frame.Data()); n > 0 {
				err = f.framer.WriteWindowUpdate(0, uint32(n))
			}
			ended = frame.StreamID == stream && frame.StreamEnded()
		case *http2.RSTStreamFrame:
			if frame.StreamID == stream {
				got.err = fmt.Errorf("reset: %s", frame.ErrCode)
				return got, nil
			}
		case *http2.GoAwayFrame:
			return got, fmt.Errorf("go away: %s", frame.ErrCode)
		}
		if ended || err != nil {
			return got, err
		}
	}
}

// add takes a field of the answer.
func (r *reply) add(name, value string) {
	switch name {
	case ":status":
		r.status, _ = strconv.Atoi(value)
	case "www-authenticate":
		r.challenge += value + " "
	}
}

type http3Framer struct{ conn *quic.Conn }

func (f *http3Framer) close() { _ = f.conn.CloseWithError(0x100, "") }

// Types of frames (RFC 9114, section 7.2).
const (
	http3Data    = 0
	http3Headers = 1
)

func (f *http3Framer) ask(q *frames, s shot) (reply, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	stream, err := f.conn.OpenStreamSync(ctx)
	if err != nil {
		return reply{}, err
	}
	_ = stream.SetDeadline(time.Now().Add(30 * time.Second))
	var out []byte
	frame := func(kind uint64, content []byte) {
		out = quicvarint.Append(out, kind)
		out = quicvarint.Append(out, uint64(len(content)))
		out = append(out, content...)
	}
	for _, fields := range [][][2]string{q.fields, q.trailer} {
		if len(fields) == 0 {
			continue
		}
		var block bytes.Buffer
		encoder := qpack.NewEncoder(&block)
		for _, field := range fields {
			if err := encoder.WriteField(qpack.HeaderField{Name: s.fill(field[0]), Value: s.fill(field[1])}); err != nil {
				return reply{}, err
			}
		}
		frame(http3Headers, block.Bytes())
		for body := s.fill(q.body); body != ""; {
			n := len(body)
			if q.split {
				n = 1
			}
			frame(http3Data, []byte(body[:n]))
			body = body[n:]
		}
		q = &frames{trailer: q.trailer} // the body is between the two
	}
	if _, err := stream.Write(out); err != nil {
		return f.broken(reply{}, err)
	}
	_ = stream.Close()
	return f.answer(stream)
}

func (f *http3Framer) answer(stream *quic.Stream) (got reply, err error) {
	r := quicvarint.NewReader(stream)
	for {
		kind, err := quicvarint.Read(r)
		if errors.Is(err, io.EOF) {
			return got, nil
		}
		if err != nil {
			return f.broken(got, err)
		}
		length, err := quicvarint.Read(r)
		if err != nil {
			return f.broken(got, err)
		}
		content := make([]byte, length)
		if _, err := io.ReadFull(r, content); err != nil {
			return f.broken(got, err)
		}
		if kind != http3Headers {
			continue
		}
		next := qpack.NewDecoder().Decode(content)
		for {
			field, err := next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return got, err
			}
			got.add(field.Name, field.Value)
		}
	}
}

// broken tells apart what ended: the stream, or the connection.
func (f *http3Framer) broken(got reply, err error) (reply, error) {
	if f.conn.Context().Err() != nil {
		return got, err
	}
	if streamError, ok := errors.AsType[*quic.StreamError](err); ok {
		got.err = streamError
		return got, nil
	}
	return got, err
}
