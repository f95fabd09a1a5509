package edge

import "muster/clients/wire"

// codec is one subprotocol. Presences are encoded one by one, so that what is encoded
// once goes into the frames of many sockets.
type codec interface {
	// number indexes the codec's encodings in a view.
	number() int
	// opcode is the first byte of its frames.
	opcode() byte
	// binary reports which kind of message the codec reads.
	binary() bool
	// decode calls each for every command of a frame. Its errors are *wire.SyntaxError
	// for the frame; a bad command is given to each as *wire.FieldError.
	decode(frame []byte, each func(*wire.Command, *wire.FieldError) bool) error
	appendReply(b []byte, r *wire.Reply) []byte
	appendPresence(b []byte, p *wire.Presence) []byte
	// appendPresences makes a push of encoded presences.
	appendPresences(b []byte, entries ...[]byte) []byte
}

// codecs is how many subprotocols there are.
const codecs = 1

type jsonCodec struct{}

func (jsonCodec) number() int  { return 0 }
func (jsonCodec) opcode() byte { return opText }
func (jsonCodec) binary() bool { return false }

func (jsonCodec) decode(frame []byte, each func(*wire.Command, *wire.FieldError) bool) error {
	lines, err := wire.Lines(frame)
	if err != nil {
		return err
	}
	for line := range lines {
		c := new(wire.Command)
		err := wire.Decode(line, c)
		field, _ := err.(*wire.FieldError)
		if err != nil && field == nil {
			return err
		}
		if !each(c, field) {
			return nil
		}
	}
	return nil
}

func (jsonCodec) appendReply(b []byte, r *wire.Reply) []byte { return r.AppendJSON(b) }

func (jsonCodec) appendPresence(b []byte, p *wire.Presence) []byte { return p.AppendJSON(b) }

func (jsonCodec) appendPresences(b []byte, entries ...[]byte) []byte {
	return wire.AppendPresencePush(b, entries...)
}
