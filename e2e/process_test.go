//go:build e2e

package e2e

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// process is a program that a test started. The test's cleanup ends it, and
// prints what it wrote if the test failed.
type process struct {
	t    testing.TB
	name string
	cmd  *exec.Cmd
	logs *logs
	done chan struct{} // closed after the process has ended
}

// start runs a program with the given environment on top of the present one.
// Its output goes to logs, which outlive it: the next start of the same program
// appends.
func start(t testing.TB, name string, logs *logs, dir string, env []string, program string, args ...string) *process {
	t.Helper()
	p := &process{t: t, name: name, logs: logs, done: make(chan struct{})}
	p.cmd = exec.Command(program, args...)
	p.cmd.Dir = dir
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = logs, logs
	// A group of its own: "go run" starts the program that has to be killed.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.cmd.WaitDelay = 10 * time.Second
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("starting %s: %v", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // how it ended is in p.cmd.ProcessState
		close(p.done)
	}()
	t.Cleanup(p.stop)
	return p
}

// kill is kill -9: the process gets no chance to finish anything.
func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	<-p.done
}

// stop asks the process to end and waits until it has.
func (p *process) stop() {
	p.signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		p.t.Errorf("%s did not stop within 20 s of SIGTERM", p.name)
		p.kill()
	}
}

func (p *process) signal(s syscall.Signal) {
	select {
	case <-p.done: // its number may be another process's by now
	default:
		if err := syscall.Kill(-p.cmd.Process.Pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
			p.t.Errorf("sending %s to %s: %v", s, p.name, err)
		}
	}
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// eventually polls until ok returns true, and fails the test with what it was
// waiting for, and the last state that ok described, after the deadline.
func eventually(t testing.TB, deadline time.Duration, what string, ok func() (bool, string)) time.Duration {
	t.Helper()
	started := time.Now()
	for wait := time.Millisecond; ; wait = min(wait*2, 50*time.Millisecond) {
		done, state := ok()
		if done {
			return time.Since(started)
		}
		if time.Since(started) > deadline {
			t.Fatalf("%s: not within %s; last seen: %s", what, deadline, state)
		}
		time.Sleep(wait)
	}
}

// output runs a program to its end and returns its standard output. Standard
// error goes to logs, so that it is printed and searched with the rest.
func output(t testing.TB, logs io.Writer, dir string, env []string, program string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	var stdout bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, logs
	err := cmd.Run()
	return stdout.String(), err
}
