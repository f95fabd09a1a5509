package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
)

// Bounds of what names a node and its cluster.
const (
	minSecret = 16 // bytes of cluster-secret
	maxZone   = 64 // bytes
	maxExpect = 15
)

// clustered tells whether the node meets others. One without any setting that says so is
// alone and opens no ports for it.
func (c *Config) clustered() bool { return c.Bind != "" }

// core tells whether the node holds data.
func (c *Config) core() bool { return c.Role != "edge" }

// edge tells whether the node takes clients.
func (c *Config) edge() bool { return c.Role != "core" }

// checkCluster completes and checks what concerns other nodes.
func (c *Config) checkCluster() error {
	switch c.Role {
	case "core", "edge", "both":
	default:
		return fmt.Errorf("role: %q is unknown; write core, edge or both", c.Role)
	}
	if c.Bind == "" && (len(c.Join) > 0 || c.Expect > 0 || c.Role != "both" || len(c.ClusterSecret) > 0 || c.ClusterSecretFile != "") {
		c.Bind = "127.0.0.1"
	}
	if !c.clustered() {
		return nil
	}
	if err := c.checkBirth(); err != nil {
		return err
	}
	if err := c.checkBind(); err != nil {
		return err
	}
	for _, p := range []struct {
		name string
		port int
	}{{"gossip-port", c.GossipPort}, {"actor-port", c.ActorPort}, {"raft-port", c.RaftPort}} {
		if p.port < 1 || p.port > 65535 {
			return fmt.Errorf("%s: %d is not a port; write 1 to 65535", p.name, p.port)
		}
	}
	if len(c.Zone) > maxZone {
		return fmt.Errorf("zone: %d bytes are too long; write %d at most", len(c.Zone), maxZone)
	}
	return nil
}

// checkBirth checks who is to be met and what for.
func (c *Config) checkBirth() error {
	for _, a := range c.Join {
		if _, _, err := net.SplitHostPort(a); err != nil {
			return fmt.Errorf("join: %q is not an address; write host:port with the gossip port, such as 10.0.0.1:7946", a)
		}
	}
	switch {
	case c.Expect < 0 || c.Expect > maxExpect:
		return fmt.Errorf("expect: %d is out of range; write the number of nodes that found the cluster, up to %d", c.Expect, maxExpect)
	case c.Expect > 0 && len(c.Join) == 0:
		return fmt.Errorf("expect: the nodes must find each other; name them with --join")
	case c.Expect > 0 && c.Expect <= len(c.Join)/2:
		return fmt.Errorf("expect: %d is at most half of the %d addresses of --join, so two clusters could be born; write at least %d", c.Expect, len(c.Join), len(c.Join)/2+1)
	case c.Expect > 0 && !c.core():
		return fmt.Errorf("expect: an edge founds no cluster; leave it out with --role edge")
	case len(c.Join) == 0 && !c.core():
		return fmt.Errorf("join: an edge needs cores; name one with --join")
	}
	return nil
}

// readSecrets takes the secrets from where they are, and refuses short ones.
func (c *Config) readSecrets() error {
	if len(c.ClusterSecret) > 0 && c.ClusterSecretFile != "" {
		return fmt.Errorf("cluster-secret and cluster-secret-file are both set; leave one out")
	}
	if c.ClusterSecretFile != "" {
		text, err := os.ReadFile(c.ClusterSecretFile)
		if err != nil {
			return fmt.Errorf("cluster-secret-file: %w", err)
		}
		for line := range strings.Lines(string(text)) {
			if line = strings.TrimSpace(line); line != "" {
				c.ClusterSecret = append(c.ClusterSecret, line)
			}
		}
		if len(c.ClusterSecret) == 0 {
			return fmt.Errorf("cluster-secret-file: %s holds no secret; write one a line", c.ClusterSecretFile)
		}
	}
	for _, s := range c.ClusterSecret {
		if n := len(s); n < minSecret {
			return fmt.Errorf("cluster-secret: %d bytes are too short; write %d or more random ones without commas, such as from `openssl rand -base64 32`", n, minSecret)
		}
	}
	return nil
}

// checkBind reads the secret and refuses to be reachable without one.
func (c *Config) checkBind() error {
	if err := c.readSecrets(); err != nil {
		return err
	}
	ip, err := netip.ParseAddr(c.Bind)
	if err != nil {
		return fmt.Errorf("bind: %q is not an IP address; write one of this machine", c.Bind)
	}
	if ip.IsUnspecified() && c.Advertise == "" {
		return fmt.Errorf("bind: %s is every address of this machine; say with --advertise which one the other nodes use", c.Bind)
	}
	if c.Advertise == "" {
		c.Advertise = c.Bind
	}
	if !ip.IsLoopback() && len(c.ClusterSecret) == 0 {
		return fmt.Errorf("bind: %s can be reached from other machines, so nodes must know each other: set --cluster-secret, the same on all nodes", c.Bind)
	}
	return nil
}
