// Package gossip says which nodes are alive, what they do and where they are.
package gossip

import _ "github.com/hashicorp/memberlist"
