# Golden ids in worker/src/text/mod.rs: two made-up tokenizers in the `tokenizers` package for Python (0.23.3).
from tokenizers import Tokenizer, AddedToken, models, pre_tokenizers, normalizers, processors, decoders
pieces = ["[PAD]","[UNK]","[CLS]","[SEP]","my","card","has","not","arrive","##d","##s","?","a","##r","caf","##e","ca"]
wp = Tokenizer(models.WordPiece({p:i for i,p in enumerate(pieces)}, unk_token="[UNK]", continuing_subword_prefix="##", max_input_chars_per_word=100))
wp.normalizer = normalizers.BertNormalizer(); wp.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
wp.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", [("[CLS]",2),("[SEP]",3)])
wp.decoder = decoders.WordPiece()
wp.add_special_tokens(["[PAD]","[UNK]","[CLS]","[SEP]"])
for t in ["My card has not arrived?", "cards, Café!", ""]: print(repr(t), wp.encode(t).ids, repr(wp.decode(wp.encode(t).ids)))

bs=list(range(33,127))+list(range(161,173))+list(range(174,256));cs=bs[:];n=0
for b in range(256):
    if b not in bs: bs.append(b);cs.append(256+n);n+=1
enc=dict(zip(bs,map(chr,cs)))
tokens=["<end>","<user>"]+[enc[b] for b in range(256)]+["he","ll","hell","hello","Ġw","or","Ġwor","22"]
merges=[("h","e"),("l","l"),("he","ll"),("hell","o"),("Ġ","w"),("o","r"),("Ġw","or"),("2","2")]
for name,pre in [("gpt-2",pre_tokenizers.ByteLevel(add_prefix_space=False)),("smollm",pre_tokenizers.Sequence([pre_tokenizers.Digits(True),pre_tokenizers.ByteLevel(add_prefix_space=False)]))]:
    t=Tokenizer(models.BPE({x:i for i,x in enumerate(tokens)},merges)); t.pre_tokenizer=pre; t.decoder=decoders.ByteLevel()
    t.add_special_tokens(["<end>","<user>"])
    for s in ["hello world 22","<user>é€😀<end>","hello\n\n  w"]: print(name,repr(s),t.encode(s).ids)
