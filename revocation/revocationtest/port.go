package revocationtest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
)

// FreePort returns a TCP port of the loopback interface that nobody listens on.
// It is below the range that the kernel takes the ports of outgoing connections
// from, so that none of those gets it before the server that it is meant for. No
// test of the process gets the same one again.
func FreePort(t testing.TB) int {
	t.Helper()
	for range 1000 {
		port := 10000 + rand.IntN(22000)
		if _, taken := portsTaken.LoadOrStore(port, true); taken {
			continue
		}
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		if err := listener.Close(); err != nil {
			t.Fatal(err)
		}
		return port
	}
	t.Fatal("no free port found")
	return 0
}

// portsTaken are the ports that this process has handed out.
var portsTaken sync.Map
