//go:build e2e

package e2e

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// load is what hammering a server came to.
type load struct {
	requests int
	took     time.Duration
	cpu      time.Duration // that the server used meanwhile
}

func (l load) perSecond() float64     { return float64(l.requests) / l.took.Seconds() }
func (l load) cpuPerRequest() float64 { return l.cpu.Seconds() * 1e6 / float64(l.requests) }

// hammer sends requests with the given tokens in turn over a number of
// connections, for a while. It writes prepared bytes and reads no more of the
// answers than it must: on the machine's few cores, what the generator uses is
// taken from the server. Every answer must have the given status.
func hammer(t testing.TB, e *edge, tokens []string, connections int, during time.Duration, status int) load {
	t.Helper()
	requests := make([][]byte, len(tokens))
	for i, token := range tokens {
		requests[i] = fmt.Appendf(nil, "GET / HTTP/1.1\r\nHost: localhost%s\r\nAuthorization: Bearer %s\r\n\r\n",
			e.address[strings.LastIndex(e.address, ":"):], token)
	}
	var (
		mu      sync.Mutex
		total   int
		failure error
		workers sync.WaitGroup
	)
	used, started := cpuTime(t, e.process), time.Now()
	for worker := range connections {
		workers.Go(func() {
			n, err := hammerOne(e.address, requests, worker*len(requests)/connections, started.Add(during), status)
			mu.Lock()
			defer mu.Unlock()
			total += n
			if err != nil {
				failure = err
			}
		})
	}
	workers.Wait()
	took := time.Since(started)
	if failure != nil || total == 0 {
		t.Fatalf("%s under load: %d requests, then %v", e.name, total, failure)
	}
	return load{requests: total, took: took, cpu: cpuTime(t, e.process) - used}
}

func hammerOne(address string, requests [][]byte, next int, until time.Time, status int) (done int, err error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(until.Add(10 * time.Second)); err != nil {
		return 0, err
	}
	reader := bufio.NewReader(conn)
	for ; time.Now().Before(until); done++ {
		if _, err := conn.Write(requests[next%len(requests)]); err != nil {
			return done, err
		}
		next++
		got, err := skipAnswer(reader)
		if err != nil {
			return done, err
		}
		if got != status {
			return done, fmt.Errorf("status %d", got)
		}
	}
	return done, nil
}

// skipAnswer reads one answer that has a Content-Length and returns its status.
func skipAnswer(reader *bufio.Reader) (status int, err error) {
	length := 0
	for first := true; ; first = false {
		line, err := reader.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		switch text := strings.TrimRight(string(line), "\r\n"); {
		case text == "":
			_, err := reader.Discard(length)
			return status, err
		case first:
			if status, err = strconv.Atoi(text[len("HTTP/1.1 "):][:3]); err != nil {
				return 0, err
			}
		case strings.HasPrefix(text, "Content-Length: "):
			if length, err = strconv.Atoi(text[len("Content-Length: "):]); err != nil {
				return 0, err
			}
		}
	}
}

// cpuTime returns what a process has used so far, by the kernel's count in
// hundredths of a second.
func cpuTime(t testing.TB, p *process) time.Duration {
	t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		t.Fatalf("reading what the process has used (Linux only): %v", err)
	}
	// After the name in parentheses: state is the first field, utime the 12th.
	fields := strings.Fields(string(content[strings.LastIndexByte(string(content), ')')+1:]))
	const tick = 10 * time.Millisecond
	var used time.Duration
	for _, field := range fields[11:13] {
		ticks, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		used += time.Duration(ticks) * tick
	}
	return used
}

// residentMemory returns a process's resident set, in bytes.
func residentMemory(t testing.TB, p *process) float64 {
	t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatalf("reading the size of the process (Linux only): %v", err)
	}
	for line := range strings.Lines(string(content)) {
		if kilobytes, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, err := strconv.Atoi(strings.Fields(kilobytes)[0])
			if err != nil {
				t.Fatal(err)
			}
			return float64(n) * 1024
		}
	}
	t.Fatal("the process has no VmRSS")
	return 0
}

// quantile returns the value below which the given part of the values is.
func quantile[T float64 | time.Duration](values []T, part float64) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(int(part*float64(len(sorted))), len(sorted)-1)]
}
