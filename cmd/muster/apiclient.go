package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// apiClient asks a running server over its HTTP API.
type apiClient struct {
	base, key, app string
}

// addAPIFlags declares where the API is; settings of the same names are the default.
func addAPIFlags(cmd *cobra.Command) {
	addFlags(cmd.Flags(), "api-listen", "api-key")
	cmd.Flags().String("api", "", "the server's HTTP API, such as http://127.0.0.1:8001 (default: api-listen)")
	cmd.Flags().String("app", "", "the application (tenant) to ask about")
}

func newAPIClient(cmd *cobra.Command) (*apiClient, error) {
	cfg, _, err := loadConfig(cmd.Flags(), environment())
	if err != nil {
		return nil, err
	}
	base, _ := cmd.Flags().GetString("api")
	if base == "" {
		base = "http://" + cfg.APIListen
	}
	if u, err := url.Parse(base); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("--api: %q is not a URL; write http://127.0.0.1:8001", base)
	}
	app, _ := cmd.Flags().GetString("app")
	key := devSecret
	if len(cfg.APIKey) > 0 {
		key = cfg.APIKey[0]
		if bound, secret, ok := strings.Cut(key, ":"); ok {
			key = secret
			if app == "" {
				app = bound
			}
		}
	}
	return &apiClient{base: strings.TrimSuffix(base, "/"), key: key, app: app}, nil
}

// get asks for path and returns the body of a 200.
func (c *apiClient) get(ctx context.Context, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var body bytes.Buffer
	err := c.stream(ctx, path, &limited{&body, 16 << 20})
	return body.Bytes(), err
}

// limited refuses what is longer than left bytes.
type limited struct {
	w    io.Writer
	left int
}

func (l *limited) Write(b []byte) (int, error) {
	if l.left -= len(b); l.left < 0 {
		return 0, errors.New("the server's answer is too long")
	}
	return l.w.Write(b)
}

// stream asks for path and copies the body of a 200.
func (c *apiClient) stream(ctx context.Context, path string, w io.Writer) error {
	return c.ask(ctx, http.MethodGet, path, w)
}

// post asks for something to be done.
func (c *apiClient) post(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	return c.ask(ctx, http.MethodPost, path, io.Discard)
}

func (c *apiClient) ask(ctx context.Context, method, path string, w io.Writer) error {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+c.key)
	if c.app != "" {
		req.Header.Set("X-Muster-App", c.app)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return faultf("no server answers at %s (%w); start one with `muster serve --dev`, or name it with --api", c.base, rootCause(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusNoContent {
		if _, err := io.Copy(w, resp.Body); err != nil {
			return faultf("%s%s: the answer was cut off: %w", c.base, path, rootCause(err))
		}
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return fault(err)
	}
	var refused struct{ Name, Message string }
	if json.Unmarshal(body, &refused) == nil && refused.Message != "" {
		return faultf("%s: %s: %s", c.base, refused.Name, refused.Message)
	}
	return faultf("%s%s: %s", c.base, path, resp.Status)
}
