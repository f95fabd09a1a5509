package persistence

import (
	"encoding/binary"
	"encoding/json"
	"io"
	"slices"
)

// JoinBackups makes one backup of several that hold other groups of the same cluster, one after the other; the first says of
// which store it is. Together they must hold each of the groups once, in any order, and no other.
//
// ErrBackup, ErrNewer, or what a part or w returns.
func JoinBackups(w io.Writer, groups []uint32, parts ...func() (io.ReadCloser, error)) (Summary, error) {
	j := &join{out: &streamWriter{w: w}, left: slices.Clone(groups)}
	for _, open := range parts {
		r, err := open()
		if err != nil {
			return j.sum, err
		}
		err = j.part(&streamReader{r: r})
		if cerr := r.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return j.sum, err
		}
	}
	if len(j.left) > 0 {
		return j.sum, damaged("groups %v are in no part", j.left)
	}
	return j.sum, j.out.chunk(chunkLast, binary.AppendUvarint(nil, uint64(j.sum.Groups)))
}

type join struct {
	out  *streamWriter
	sum  Summary
	left []uint32
}

func (j *join) part(in *streamReader) error {
	birth, err := in.birth()
	if err != nil {
		return err
	}
	if j.sum.Cluster == "" {
		if err := j.begin(birth); err != nil {
			return err
		}
	}
	if birth.Cluster != j.sum.Cluster {
		return damaged("a part is of cluster %s, another of %s", birth.Cluster, j.sum.Cluster)
	}
	for {
		kind, b, err := in.next()
		if err != nil {
			return err
		}
		switch kind {
		case chunkLast:
			return nil
		case chunkGroup:
			h, err := decodeGroupHead(b, true)
			if err != nil {
				return err
			}
			at := slices.Index(j.left, h.group)
			if at < 0 {
				return damaged("group %d comes twice or was not asked for", h.group)
			}
			j.left = slices.Delete(j.left, at, at+1)
			j.sum.Groups++
		case chunkRows, chunkEnd:
		default:
			return damaged("chunk %q between groups", kind)
		}
		if err := j.out.chunk(kind, b); err != nil {
			return err
		}
	}
}

func (j *join) begin(birth Birth) error {
	j.sum.Birth = birth
	b, err := json.Marshal(birth)
	if err != nil {
		return err
	}
	if err := j.out.begin(streamBackup); err != nil {
		return err
	}
	return j.out.chunk(chunkBirth, b)
}
