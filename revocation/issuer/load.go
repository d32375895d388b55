package issuer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"
)

// jwksFilePoll is how often a key file is looked at.
const jwksFilePoll = 5 * time.Second

// rediscover is for how long a discovered address is used without asking again.
const rediscover = time.Hour

// fetcher loads keys over HTTP, with discovery if there is no fixed address.
type fetcher struct {
	config Config
	client *http.Client
	skip   func([]string)
	// address is the discovered address of the keys; nil when it has to be
	// discovered (again).
	address    *url.URL
	discovered time.Time
}

func (f *fetcher) load(ctx context.Context, fresh bool) (found, error) {
	address := f.address
	if address == nil || time.Since(f.discovered) > rediscover {
		var err error
		if f.config.JWKSURI != "" {
			address, err = parseKeyURL(f.config.JWKSURI, f.config.AllowHTTP)
		} else {
			address, err = f.config.discover(ctx, f.client)
		}
		if err != nil {
			return found{}, err
		}
		f.discovered = time.Now()
	}
	body, maxAge, err := get(ctx, f.client, address, fresh)
	if err == nil {
		var keys []*key
		var skipped []string
		keys, skipped, err = parseKeySet(body)
		f.skip(skipped)
		if err == nil {
			f.address = address
			return found{keys: keys, maxAge: maxAge}, nil
		}
		err = fmt.Errorf("reading the keys at %s: %w", address, err)
	}
	// The address may have moved: discover it again next time.
	f.address = nil
	return found{}, err
}

// file loads keys from a file, when it changed.
type file struct {
	path  string
	skip  func([]string)
	known os.FileInfo
}

func (f *file) load(context.Context, bool) (found, error) {
	info, err := os.Stat(f.path)
	if err != nil {
		return found{}, err
	}
	if f.known != nil && os.SameFile(f.known, info) && f.known.ModTime().Equal(info.ModTime()) && f.known.Size() == info.Size() {
		return found{unchanged: true, maxAge: -1}, nil
	}
	text, err := readFile(f.path)
	if err != nil {
		return found{}, err
	}
	keys, skipped, err := parseKeySet(text)
	f.skip(skipped)
	if err != nil {
		return found{}, fmt.Errorf("reading %s: %w", f.path, err)
	}
	f.known = info
	return found{keys: keys, maxAge: -1, removed: true}, nil
}

func readFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	text, err := io.ReadAll(io.LimitReader(file, maxDocument+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxDocument {
		return nil, errors.New("reading " + path + ": it is too large for a key set")
	}
	return text, nil
}
