"""Models and tables that filters need and no package carries. docs/curate_models.md lists all with their addresses."""

from poolbench.assets import Asset

_BASELINES = "https://github.com/sagadre/datacomp_baseline_assets/releases/download/v0.1.0-alpha"
_NLTK_DATA = "https://raw.githubusercontent.com/nltk/nltk_data/5db857e6f7df11eabb5e5665836db9ec8df07e28"

LID_176 = Asset(
    "lid.176.bin",
    "https://dl.fbaipublicfiles.com/fasttext/supervised-models/lid.176.bin",
    "sha256:7e69ec5451bc261cc7844e49e4792a85d7f09c06789ec800fc4a44aec362764e",
    "or take filter.language=fasttext_small, whose subset is not the published filter's",
)
WORDNET = Asset(
    "wordnet.zip",
    f"{_NLTK_DATA}/packages/corpora/wordnet.zip",
    "git:3c68cd207844f071a5206f7fbed23e5c607ec02f",
    "or install Debian's wordnet-base, or name a folder with WordNet 3.0 by filter.wordnet=",
)
_METACLIP = "https://raw.githubusercontent.com/facebookresearch/MetaCLIP/f47f7841f6a91cc5676729a3d125519393d87d1e"
METACLIP_METADATA = Asset(
    "metaclip_metadata.json",
    f"{_METACLIP}/metaclip/metaclip1/metadata.json",
    "git:2691a90d6690440916c87348d2b9548157570a2c",
    "or name a list of your own by filter.metadata=, or take filter.metadata=wordnet",
)
CENTROIDS = {
    scale: Asset(
        f"{scale}_centroids_l14.pt",
        f"{_BASELINES}/{scale}_centroids_l14.pt",
        f"sha256:{digest}",
        "or make centroids of the pool: python -m curate.centroids pool=… out=…",
    )
    for scale, digest in {
        "small": "23c66a05e49ad77283c1e2b33355c7eb088ac332a944c97ff85d5dfd48a5b251",
        "medium": "028b1721b1d0f139c565b6b0ac99f8a1756f4bae89c36b0ec6d1c6ea9b6f112d",
        "large": "04eeab1069d3540c246cf7ce69323147351a474017fc472e4c50a018ca32240b",
        "xlarge": "3f62e5f8ae3a715ce84e422846fcfce1536d184455ea234790c4a6465c4c6726",
    }.items()
}
IMAGENET_TRAIN = [
    Asset(
        f"in1k_clip_vit_l14_{part}.pt",
        f"{_BASELINES}/in1k_clip_vit_l14_{part}.pt",
        f"sha256:{digest}",
        "or name a .npy of embeddings by filter.targets=",
    )
    for part, digest in enumerate(
        (
            "304990fd492f40ba90072b80af78d6e8edcab9d042476ef513e03441cf53743b",
            "72f008e6aa3bfb54174fa322963215337f843fc90fd642a9dccc815dd9e7ee76",
            "83c3cc6503b8a50a22cac7023ca6cd61b130ab9725db2a7519f1bec5cabf5493",
            "83faa289f847799ddcd438e5b74df1cb5973c345674896d10ba31ea48bc63804",
            "067a45f4a140a93371876510a2fd9198a89ac1d194ae4063a51b45a6da69cadf",
        )
    )
]
