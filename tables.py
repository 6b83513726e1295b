"""README's results, made from results/: the finding in a paragraph, and the tables, in English and in Chinese; so are
the figures on reliability and speed.

`python run.py table` writes them between the markers of both READMEs. Nothing here is typed but what the seeds and the
papers report; every other number is read from a run.json.
"""
import json
import re
import statistics
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent
MARKERS = r"(<!-- {0}:begin -->\n).*?(<!-- {0}:end -->)"
EDITIONS = {"README.md": "en", "README.zh.md": "zh"}
SEED_000 = {"clean": 84.80, "degraded": 47.26, "joint": 80.95, "psnr_db": 28.80, "ssim": 0.8691}
SEED_002 = {"classification alone": (92.1, None), "restoration alone": (None, 28.5), "joint": (93.8, 30.2)}
PUBLISHED = {  # ×2, luma: PSNR (dB) and SSIM on Set5, then on Set14; parameters in thousands stand in the name
    "bicubic": (33.66, 0.9299, 30.24, 0.8688),
    "SRCNN (57 K)": (36.66, 0.9542, 32.42, 0.9063), "VDSR (665 K)": (37.53, 0.9587, 33.03, 0.9124),
    "EDSR-baseline (1.37 M)": (37.98, 0.9604, 33.57, 0.9174), "EDSR (40.7 M)": (38.11, 0.9601, 33.92, 0.9195),
    "SwinIR (11.8 M)": (38.35, 0.9620, 34.14, 0.9227),
}  # fmt: skip
FURTHER_ARMS = ("task_only", "distilled", "feature_loss")  # what is tried beside the joint loss
COLUMNS_X4 = [f"{name} {score}" for name in ("Set5", "Set14", "DIV2K valid, RGB") for score in ("PSNR (dB)", "SSIM")]
PUBLISHED_X4 = {  # ×4, luma, but for the last two columns
    "bicubic": (28.42, 0.8104, 26.00, 0.7027, 26.66, None), "SRResNet (1.5 M)": (32.05, None, 28.49, None, None, None),
    "SRGAN (1.5 M)": (29.40, None, 26.02, None, None, None),
    "EDSR-baseline (1.5 M)": (32.09, 0.8936, 28.58, 0.7804, 28.95, None),
    "seed 003": (None, None, None, None, 27.579, 0.8031),
}  # fmt: skip

ENGLISH = {
    "clean": "clean (ceiling)", "degraded": "degraded (floor)", "cascade": "cascade", "control": "**control**",
    "frozen": "frozen", "joint": "joint", "task_only": "task only", "distilled": "distilled (ours)",
    "feature_loss": "feature loss (after SR4IR)",
    "nearest": "nearest", "bicubic": "bicubic", "srnet": "SRNet",
    "srnet_longer": "SRNet, trained longer", "self-ensemble": "{}, averaged over 8 flips and turns",
    "seed": "seed document",
    "yes": "Yes", "little": "Yes, but little", "unclear": "Not measurably", "no": "No, it harms",
    "ladder":
        "| rung | accuracy, {num_test:,} of {data} (%) | n | lowest to highest | PSNR, RGB (dB) | SSIM, RGB | "
        "seed document (%) |",
    "enlargement": "| ×2, PSNR (dB) / SSIM | {} |", "literature": "luma", "rgb": "RGB",
    "step": "**{points}** ({low} to {high})",
    "finding":
        "**{verdict}.** On {data} ({num_test:,} test pictures), the jointly trained pair of SRNet and ClassifyNet "
        "differs by {vision} points (n = {seeds}; {lowest} to {highest} from seed to seed) from its control: the same "
        "classifier, trained alike on shrunken pictures enlarged by interpolation alone. Shrinking to 16×16 takes "
        "accuracy from {clean} to {degraded}; the pair raises it to **{joint}**, by {whole:.1f} points, of which the "
        "control alone gains {seen:.1f}. Super-resolution alone is worth {cascade} to a classifier that has never seen "
        "shrunken pictures, and {frozen} to one that is trained on what it is given (frozen against control); training "
        "SRNet together with it for {steps:,} steps {together}: {trained}. In brackets: paired 95 % intervals over "
        "the test pictures.{share}\n\n"
        "Dropping the pixel loss changes joint training by {task_only}, a clean teacher's answers by {distilled}, and "
        "its features, with clean patches set into restored pictures, by {feature_loss} (n = {further_seeds} for each; "
        "at training seed 0 alone {at_seed_0}).{caution}",
    "caution":
        " At seeds {seeds} these arms differ from joint in precision and in their adaptation too; from task only, "
        "which shares both, distilled differs by {distilled}.",
    "share":
        " Counted after what the control gains, low-level vision as a whole makes {share:.0f} % of the way from "
        "degraded to joint; less than a quarter we call little.",
    "a better SRNet":
        " An SRNet that was trained longer, in the first one's place, changes what the unadapted classifier gets right "
        "by {gain} points, and its pictures by {psnr_db} dB; the other rungs were not repeated with it.",
    "together": {
        "helps": "adds to that",
        "neither": "adds nothing measurable to that (on other data SR4IR's authors saw it lose accuracy)",
        "harms": "takes from that, as SR4IR's authors saw on other data",
    },
    "weights of the pixel loss":
        " Here and above the pixel loss, unless it is dropped, is weighted by λ = {weight:g} and the label by "
        "{label:g}. Of the {num} values of λ tried (validation, training seed 0), λ = {best:g} gives the highest "
        "accuracy: {best_accuracy:.2f} %, against "
        "{joint_accuracy:.2f} % at λ = {weight:g} and {frozen_accuracy:.2f} % with SRNet left as it was; "
        "{num_valid:,} pictures cannot tell tenths of a point apart.",
    "elsewhere":
        "On {total} other degradations, which no network was trained on, super-resolution changes accuracy by "
        "{adapted} points where the classifier has adapted (frozen against control, behind it in {behind} of {total}), "
        "and by {untouched} where it has not (cascade against degraded): means over the degradations, "
        "{num_test:,} pictures each, training seed 0.",
    "carries over": {
        "helps": "**The gain carries over.** ", "neither": "",
        "harms": "**Once the classifier has adapted, the gain turns into a loss elsewhere.** ",
    },
    "ladder figure":
        "![Accuracy of every rung between the degraded floor and the clean ceiling](results/multi/ladder.png)",
    "stages figure":
        "![Six test pictures as the classifier of each rung sees them, and what it says](results/multi/stages.jpg)",
    "note on the ladder":
        "n counts training seeds of adaptation ({adapt_epochs} epochs of {adapt_steps} steps, the classifier alone) "
        "and fine-tuning ({steps:,} steps of {batch_size}); all start from the same SRNet and the same clean "
        "classifier.{precision} PSNR and SSIM say how close to the clean picture is what the classifier sees (RGB, "
        "whole picture, mean over pictures). A step of joint training computes {times:.0f} times as much as one of the "
        "control. The seed document's figures come from longer training by another recipe.",
    "other precision":
        " Training seeds {seeds} of {arms} ran in {other}, after an adaptation trained anew in {other} "
        "(`adapted_srnet_again`); all other training for the ladder was in {usual}.",
    "comma": ", ",
    "classification":
        "ClassifyNet names {plain} of the {num_test:,} clean test pictures ({mirrored} averaged with the mirror "
        "image; {epochs} epochs, one run). The seed document reports {seed:.2f} % after 100.",
    "time":
        "Training took {sr:.0f} minutes for SRNet's first cycle, {classifier:.0f} for ClassifyNet and {arms:.0f} for "
        "all arms of the ladder and the sweep together, by the clock, on machines that did other work besides "
        "({device}, {precision}, torch {torch}).",
    "srresnet": "SRResNet", "srgan": "SRGAN", "resshuffle": "ResShuffle", "truth": "the originals",
    "enlargement x4": "| ×4, PSNR (dB) / SSIM / NIQE | Set5, luma | Set14, luma |",
    "note on x4":
        "Four times larger: trained on {data}, one run each ({srresnet:.0f} minutes for SRResNet, {srgan:.0f} more for "
        "SRGAN, whose feature loss read {features}; {resshuffle:.0f} for ResShuffle). Border of 4 pixels shaved; NIQE "
        "against the training photographs, lower is better, and rough on pictures as small as Set5's. The rows differ "
        "in recipe as well as in network: SRResNet took {srresnet_steps:,} steps of Adam on squared differences, "
        "ResShuffle {resshuffle_steps:,} of Muon on absolute ones. A higher PSNR does not make a better "
        "SRGAN: the paper's second stage is longer, and gives up more PSNR than ours. NIQE takes speckle for detail, "
        "so a low one does not make a picture better. Set14's grey picture lifts its column here too, by "
        "{offset:.2f} dB. DIV2K's validation part, on which seed 003 reports {seed_003:.2f} dB, was not at hand.",
    "helps": "helps", "harms": "harms", "neither": "does not measurably change",
    "joint restoration":
        "**One network for two tasks: restoring {accuracy} classifying, and classifying {psnr_db} restoring** (seed "
        "002 says that each helps the other). On {data} ({num_test:,} test pictures) with noise of σ {sigma} and a "
        "hole of {hole}×{hole} pixels, sharing one extractor (L1 weighted by λ = {weight}) changes accuracy by "
        "{points} points and PSNR by {decibels} dB, against a network for each task. In brackets: paired 95 % "
        "intervals over the test pictures, which do not cover the training seed.",
    "sweep":
        " **That is at λ = {weight:g}, as the seed writes it**; its pictures lie in [−1, 1], where it weighs twice as "
        "much. Of the {num} weights tried (validation, seed 0), λ = {best:g} restores best: "
        "{psnr_db:.2f} dB and {accuracy:.1f} % by one network, against {restore:.2f} dB and {classify:.1f} % by one "
        "for each task; each accuracy is known to ±{doubt:.1f} points, the training seed apart.",
    "amount": "**{difference}** ({low} to {high}{seeds})", "by seed": "; seed by seed {gains}",
    "arms": "| noise and a hole | accuracy (%) | PSNR (dB) | in the hole (dB) | noise alone, PSNR (dB) |",
    "untouched": "as damaged", "classify": "classification alone", "restore": "restoration alone",
    "shared": "joint, one extractor", "separate": "joint, nothing shared",
    "seed, apart": "seed document, apart", "seed, joint": "seed document, joint",
    "note on the arms":
        "n = {seeds} (in {precision}), {steps:,} steps of {batch} pictures a run. RGB, whole picture, mean over "
        "pictures. *Joint, nothing shared* takes the steps of *classification alone*, but for rounding, which can "
        "grow: what restores there shares no weights with what classifies, so where the two differ that is chance. The "
        "seed document states neither noise nor hole.",
    "colorization":
        "**Colour from grey:** {better} of the five runs after seed 004 reach the {grey:.2f} dB of a grey copy (by the "
        "error pooled over all pictures, where grey has {grey_pooled:.2f} dB: {pooled}); painting chroma alone, by our "
        "recipe, reaches **{ours:.2f} dB**. The classifier names {named_grey:.1f} % of the grey pictures, and "
        "**{named_ours:.1f} %** of those painted so.",
    "colours": "| colour from grey | PSNR (dB) | SSIM | chroma error | accuracy (%) |",
    "grey": "grey, copied", "mse": "1: MSE", "perceptual": "2: + perceptual", "regularised": "3, 5: + L1 and L2",
    "fast": "4: rate 10⁻³", "slow": "6: rate 10⁻⁵", "unet": "three colours, our recipe",
    "chroma": "chroma alone, our recipe", "coloured": "true colours",
    "note on colours":
        "The {num_test:,} test pictures of {data} that have colour; one run of {steps:,} steps a row ({epochs} short "
        "epochs; the seed trains for 50 whole ones), 1 to 6 after seed 004 (perceptual loss: {features}). RGB, whole "
        "picture, mean over pictures; chroma error in CIELAB, without lightness; accuracy of the clean classifier, "
        "which has seen true colours only.",
    "kills": "training killed at a random moment, resumed to the same bits",
    "damaged files": "a byte changed or the end cut off in a file of a run: an error in a sentence, or the very run",
    "full disk": "the disk fills up while saving: the last checkpoint survives",
    "two processes": "a second process in the same folder: refused",
    "hostile files": "files that would run code, write elsewhere or fill the memory: refused",
    "fuzzed images": "broken images through `read_image` and `enhance.py`: a picture or a sentence",
    "faults": "| fault | tried | survived |",
    "bench": "| what | against | times as fast | target |", "missed": "missed",
    "memory": "peak memory, ours and theirs",
    "note on bench":
        "Medians, the contestants of a row by turns in one run ({device}, torch {torch}). Training steps with an SRNet "
        "of 64 channels and 2 blocks; of 10,000 small pictures the NumPy port resized 100, its time scaled up. Epochs "
        "until the accuracy on validation pictures first passes the seed document's, from the committed histories: "
        "{epochs}.",
    "epochs": "{what} after {ours:.1f} (the seed document: at the end of {seed})",
    "epochs, clean": "{accuracy:.2f} % clean",
    "epochs, shrunken":
        "{accuracy:.2f} % on shrunken pictures by the pretrained classifier, adapted behind the pretrained SRNet,",
    "note on enlargement":
        "Super-resolution: SRNet (2.7 M) trained on {data} for {steps:,} steps in {precision}, one run (the first "
        "cycle), from which the ladder starts{longer}. In italics, published figures. Luma: border of 2 pixels shaved; "
        "RGB: whole picture, SSIM with zero-padded windows, the protocol that fits the seed document's figures. "
        "One of Set14's pictures is stored in grey and read here as RGB before luma is taken, "
        "which is why our bicubic row stands {offset:.2f} dB above the published one on Set14; our other rows gain as "
        "much there.",
    "longer":
        "; \"trained longer\": a second cycle from its weights, {steps:,} steps in {precision} ({minutes:.0f} minutes "
        "by the clock, on a machine that did other work besides), planned when the first cycle's test figures were "
        "known",
}  # fmt: skip
CHINESE = {
    "clean": "清晰（上限）", "degraded": "退化（下限）", "cascade": "级联", "control": "**对照**", "frozen": "冻结",
    "joint": "联合", "task_only": "仅任务损失", "distilled": "蒸馏（本项目）",
    "feature_loss": "特征损失（仿 SR4IR）",
    "nearest": "最近邻", "bicubic": "双三次", "srnet": "SRNet", "seed": "种子文档",
    "srnet_longer": "SRNet，训练更久", "self-ensemble": "{}，八种翻转旋转取平均",
    "yes": "能", "little": "能，但作用很小", "unclear": "看不出作用", "no": "不能，反而有害",
    "ladder":
        "| 阶梯 | 准确率，{data} {num_test:,} 张（%） | n | 最低至最高 | PSNR，RGB (dB) | SSIM，RGB | 种子文档（%） |",
    "enlargement": "| ×2，PSNR (dB) / SSIM | {} |", "literature": "亮度", "rgb": "RGB",
    "step": "**{points}**（{low} 至 {high}）",
    "finding":
        "**{verdict}。**在 {data}（{num_test:,} 张测试图）上，联合训练的 SRNet 与 ClassifyNet 与对照相差 {vision}"
        "个百分点（n = {seeds}；各训练种子间 {lowest} 至 {highest}）。"
        "对照即同一个分类器，在只经插值放大的缩小图片上同样训练。"
        "缩到 16×16 使准确率从 {clean} 降到 {degraded}；这两个网络使它升至 **{joint}**，提高 {whole:.1f} 个百分点，"
        "其中 {seen:.1f} 个单靠对照就能得到。只加超分辨率，对从未见过缩小图片的分类器值 {cascade}；"
        "对在所给图片上训练过的分类器值 {frozen}（冻结对对照）；再让 SRNet 与它一起训练 {steps:,} 步，"
        "{together}：{trained}。括号内为测试图片上的配对 95 % 区间。{share}\n\n"
        "联合训练去掉像素损失，变化 {task_only}；加上清晰图教师的软标签，变化 {distilled}；"
        "加上教师的特征、并在复原图中嵌入清晰的小块，变化 {feature_loss}"
        "（均为 n = {further_seeds}；只看训练种子 0，依次为 {at_seed_0}）。{caution}",
    "caution":
        "在种子 {seeds} 上，这些组与联合组的精度和适应也不同；蒸馏组与精度、适应都相同的仅任务损失组相差 {distilled}。",
    "share": "在对照的提高之后计算，底层视觉的全部作用占从退化到联合全程的 {share:.0f} %；不到四分之一，我们称为很小。",
    "a better SRNet":
        "换上训练更久的 SRNet，未适应的分类器的准确率变化 {gain}个百分点，它所见的图片变化 {psnr_db} dB；"
        "其余各级没有用它重做。",
    "together": {
        "helps": "还有提高", "neither": "没有可测的提高（SR4IR 的作者在其他数据上看到准确率下降）",
        "harms": "反而下降，与 SR4IR 的作者在其他数据上所见相同",
    },
    "weights of the pixel loss":
        "以上各处，像素损失的权重为 λ = {weight:g}（去掉它的一组除外），标签的权重为 {label:g}。"
        "试过的 {num} 个 λ 中（验证图片，训练种子 0），"
        "λ = {best:g} 准确率最高：{best_accuracy:.2f} %，λ = {weight:g} 时为 {joint_accuracy:.2f} %，"
        "SRNet 保持原样时为 {frozen_accuracy:.2f} %；{num_valid:,} 张图片分辨不出十分之几个百分点。",
    "elsewhere":
        "在另外 {total} 种各网络都未训练过的退化上，若分类器已适应，超分辨率使准确率变化 {adapted}个百分点"
        "（冻结对对照，{total} 种中有 {behind} 种落后）；若未适应，变化 {untouched}（级联对退化）。"
        "均为各退化的平均，每种 {num_test:,} 张图片，训练种子 0。",
    "carries over": {
        "helps": "**换一种退化，增益仍在。**", "neither": "",
        "harms": "**分类器适应之后，换一种退化，增益反而成了下降。**",
    },
    "ladder figure": "![退化下限与清晰上限之间各级的准确率](results/multi/ladder.png)",
    "stages figure": "![六张测试图在各级分类器眼中的样子，以及它的回答](results/multi/stages.jpg)",
    "note on the ladder":
        "n 为适应（只训练分类器，{adapt_epochs} 个 epoch，各 {adapt_steps} 步）与微调（{steps:,} 步，"
        "每步 {batch_size} 张）的训练种子数；各种子都从同一个 SRNet 和同一个清晰分类器出发。"
        "{precision}"
        "PSNR 与 SSIM 表示分类器所见图片与清晰图的接近程度（RGB，整幅，逐图平均）。"
        "联合训练一步的计算量是对照组一步的 {times:.0f} 倍。种子文档的数字来自另一套方案、更长的训练。",
    "other precision":
        "{arms}的训练种子 {seeds} 以 {other} 训练，所用的适应也以 {other} 重新训练（`adapted_srnet_again`）；"
        "阶梯的其余训练均为 {usual}。",
    "comma": "、",
    "classification":
        "ClassifyNet 在 {num_test:,} 张清晰测试图上的准确率为 {plain}（与镜像取平均后 {mirrored}；{epochs} 个 epoch，"
        "一次运行）。种子文档报告训练 100 个 epoch 后为 {seed:.2f} %。",
    "time":
        "训练耗时：SRNet 第一轮 {sr:.0f} 分钟，ClassifyNet {classifier:.0f} 分钟，"
        "阶梯与 λ 扫描的全部各组共 {arms:.0f} 分钟，按时钟计，"
        "各机器同时还做别的工作（{device}，{precision}，torch {torch}）。",
    "srresnet": "SRResNet", "srgan": "SRGAN", "resshuffle": "ResShuffle", "truth": "原图",
    "enlargement x4": "| ×4，PSNR (dB) / SSIM / NIQE | Set5，亮度 | Set14，亮度 |",
    "note on x4":
        "放大四倍：在 {data} 上训练，各一次运行（SRResNet {srresnet:.0f} 分钟，SRGAN 再加 {srgan:.0f} 分钟，"
        "其特征损失取自 {features}；ResShuffle {resshuffle:.0f} 分钟）。裁去 4 像素边框；"
        "NIQE 以训练照片为准，越低越好，在 Set5 这样的小图上较粗略。各行不仅网络不同，方案也不同："
        "SRResNet 用 Adam 以平方差训练 {srresnet_steps:,} 步，ResShuffle 用 Muon 以绝对差训练 {resshuffle_steps:,} 步。"
        "PSNR 更高不等于 SRGAN 更好：论文的第二阶段更长，放弃的 PSNR 也更多。NIQE 会把杂点当作细节，"
        "因此数值低不等于图片更好。种子文档 003 报告 {seed_003:.2f} dB 所用的 DIV2K 验证部分不在手边。"
        "Set14 的灰度图在这里同样使该列偏高 {offset:.2f} dB。",
    "helps": "有帮助", "harms": "有害", "neither": "看不出作用",
    "joint restoration":
        "**一个网络做两件事：学修图对认图{accuracy}，学认图对修图{psnr_db}**（种子文档 002 说两者互相帮助）。"
        "在 {data}（{num_test:,} 张测试图）上，噪声 σ {sigma}、空洞 {hole}×{hole} 像素，与每个任务各用一个网络相比，"
        "共用一个特征提取器（L1 权重 λ = {weight}）使准确率变化 {points}个百分点，PSNR 变化 {decibels} dB。"
        "括号内为测试图片上的配对 95 % 区间，不含训练种子的变动。",
    "sweep":
        "**这是 λ = {weight:g}（种子文档所写的数值）下的结果**；其图片取值于 [−1, 1]，同一 λ 的作用是这里的两倍。"
        "试过的 {num} 个权重中（验证图片，种子 0），λ = {best:g} 修复得最好："
        "一个网络兼得 {psnr_db:.2f} dB 与 {accuracy:.1f} %，各用一个网络则为 {restore:.2f} dB 与 {classify:.1f} %；"
        "每个准确率的 95 % 区间为 ±{doubt:.1f} 个百分点，不含训练种子的变动。",
    "amount": "**{difference}**（{low} 至 {high}{seeds}）", "by seed": "；各种子 {gains}",
    "arms": "| 噪声加空洞 | 准确率（%） | PSNR (dB) | 洞内 (dB) | 仅噪声，PSNR (dB) |",
    "untouched": "损坏后原样", "classify": "只分类", "restore": "只修复",
    "shared": "联合，共用提取器", "separate": "联合，互不共用",
    "seed, apart": "种子文档，各自", "seed, joint": "种子文档，联合",
    "note on the arms":
        "n = {seeds}（训练精度 {precision}），每次运行 {steps:,} 步，每步 {batch} 张（RGB，整幅，逐图平均）。"
        "除舍入外，“联合，互不共用”的训练步与“只分类”相同，因为修图的部分与分类器没有共用的权重；"
        "舍入会放大，两者的差别只是偶然。种子文档没有说明噪声与空洞的大小。",
    "colorization":
        "**由灰度上色：**依种子文档 004 的五次运行中，达到灰度原样的 {grey:.2f} dB 的有 {better} 次"
        "（若按全部图片合并的误差计，灰度原样为 {grey_pooled:.2f} dB，达到的有 {pooled} 次）；"
        "按本项目方案只画色度，达到 **{ours:.2f} dB**。分类器认对灰度图的 {named_grey:.1f} %，"
        "这样上色之后认对 **{named_ours:.1f} %**。",
    "colours": "| 由灰度上色 | PSNR (dB) | SSIM | 色度误差 | 准确率（%） |",
    "grey": "灰度原样", "mse": "1：MSE", "perceptual": "2：+ 感知损失", "regularised": "3、5：+ L1 与 L2",
    "fast": "4：学习率 10⁻³", "slow": "6：学习率 10⁻⁵", "unet": "画三种颜色，本项目方案",
    "chroma": "只画色度，本项目方案", "coloured": "真实颜色",
    "note on colours":
        "{data} 测试集中有颜色的 {num_test:,} 张；每行一次运行，{steps:,} 步"
        "（{epochs} 个短 epoch；种子文档为 50 个完整 epoch），"
        "1 至 6 依种子文档 004"
        "（感知损失取自 {features}）。RGB，整幅，逐图平均；色度误差在 CIELAB 中计算，不含明度；"
        "准确率由只见过真实颜色的分类器测得。",
    "kills": "训练在随机时刻被杀掉，续训得到逐位相同的权重",
    "damaged files": "运行文件中一个字节被改或尾部被截：一句话的报错，或原来的运行",
    "full disk": "保存时磁盘写满：上一个检查点仍在",
    "two processes": "同一文件夹里的第二个进程：被拒绝",
    "hostile files": "会执行代码、写到别处或撑满内存的文件：被拒绝",
    "fuzzed images": "损坏的图片经 `read_image` 与 `enhance.py`：得到图片，或一句话",
    "faults": "| 故障 | 尝试 | 通过 |",
    "bench": "| 项目 | 对手 | 快多少倍 | 目标 |", "missed": "未达到",
    "memory": "内存峰值，先我方后对手",
    "note on bench":
        "每行各方在同一次运行中轮流测量的中位数（{device}，torch {torch}）。训练步使用 64 通道、2 个残差块的 SRNet；"
        "10,000 张小图中 NumPy 移植版只缩放 100 张，耗时按比例放大。验证图片上的准确率首次超过种子文档所需的 epoch 数，"
        "取自已提交的历史记录：{epochs}。",
    "epochs": "{what}：{ours:.1f}（种子文档：{seed} 之末）",
    "epochs, clean": "清晰图 {accuracy:.2f} %",
    "epochs, shrunken":
        "缩小的图 {accuracy:.2f} %（预训练的分类器，在预训练的 SRNet 之后适应）",
    "note on enlargement":
        "超分辨率：SRNet（2.7 M）在 {data} 上以 {precision} 训练 {steps:,} 步，一次运行（第一轮），"
        "阶梯由它开始{longer}。"
        "斜体为已发表的数字。亮度：裁去 2 像素边框；"
        "RGB：整幅，SSIM 窗口以零填充，与种子文档的数字相符的协议。Set14 中有一张以灰度存储，这里先读成 RGB 再取亮度，"
        "因此在 Set14 上我们的双三次一行比已发表的高 {offset:.2f} dB；我们的其他各行在那里也同样偏高。",
    "longer":
        "；“训练更久”：从它的权重起的第二轮，以 {precision} 训练 {steps:,} 步"
        "（按时钟 {minutes:.0f} 分钟，机器同时还做别的工作），在已知第一轮的测试数字之后才安排",
}  # fmt: skip
WORDS = {"en": ENGLISH, "zh": CHINESE}


def read(task: str, results: Path = ROOT / "results") -> dict:
    """The run.json of a study run. Raises FileNotFoundError where it has not been run."""
    path = Path(results) / task / "run.json"
    run = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if "summary" not in run:
        raise FileNotFoundError(f"No results are in {path}: run the notebook of {task} in the study profile first.")
    return run


def finding(study: dict, language: str = "en") -> str:
    """What the ladder says, the verdict first. study: the run.json of multi_learning.ipynb (summary, differences).

    The verdict is about what super-resolution and joint training add to the control: "unclear" where the paired
    interval holds zero or the training seeds disagree in sign, "little" below a quarter of the whole way from degraded
    to joint.
    """
    words = WORDS[language]
    rungs = {row["rung"]: row for row in study["summary"]}
    steps = {row["step"]: row for row in study["differences"]}
    whole, vision = steps["degraded → joint"]["points"], steps["control → joint"]
    helps = "little" if vision["points"] < whole / 4 else "yes"
    verdict = {"helps": helps, "harms": "no", "neither": "unclear"}[
        direction(vision["low"], vision["high"], (vision["lowest"], vision["highest"]))
    ]
    trained = steps["frozen → joint"]
    together = direction(trained["low"], trained["high"], (trained["lowest"], trained["highest"]))
    share = words["share"].format(share=100 * vision["points"] / whole) if whole > 0 else ""
    accuracy = {rung: f"{100 * rungs[rung]['accuracy']:.1f} %" for rung in ("clean", "degraded", "joint")}
    brings = {"cascade": "degraded → cascade", "frozen": "control → frozen", "trained": "frozen → joint"}
    brings |= {arm: f"joint → {arm}" for arm in FURTHER_ARMS}
    arms, seeds, *_ = odd_runs(study)
    caution = words["caution"].format(
        seeds=words["comma"].join(map(str, seeds)), distilled=interval(steps["task_only → distilled"], language)
    ) if set(arms) == set(FURTHER_ARMS) else ""  # fmt: skip
    text = words["finding"].format(
        verdict=words[verdict], data=study["test_data"], num_test=study["num_test"], seeds=rungs["joint"]["seeds"],
        whole=whole, seen=steps["degraded → control"]["points"], steps=num_steps(study), **accuracy,
        share=share, caution=caution, together=words["together"][together],
        further_seeds=min(steps[f"joint → {arm}"]["seeds"] for arm in FURTHER_ARMS),
        at_seed_0=" / ".join(signed(steps[f"joint → {arm}"]["seed 0"]) for arm in FURTHER_ARMS),
        vision=interval(vision, language), lowest=signed(vision["lowest"]), highest=signed(vision["highest"]),
        **{name: interval(steps[step], language) for name, step in brings.items()},
    )  # fmt: skip
    if study.get("cascade_longer"):
        better = study["cascade_longer"]
        text += words["a better SRNet"].format(gain=interval(better, language), psnr_db=signed(better["psnr_db"]))
    if study.get("sweep"):
        tried = {row["lambda_sr"]: 100 * row["accuracy"] for row in study["sweep"]["joint"]}
        best, weight = max(tried, key=tried.get), study["settings"]["lambda_sr"]
        text += words["weights of the pixel loss"].format(
            num=len(tried), best=best, best_accuracy=tried[best], weight=weight, joint_accuracy=tried[weight],
            label=study["settings"]["lambda_cls"],
            frozen_accuracy=100 * study["sweep"]["frozen"]["accuracy"], num_valid=study["settings"]["num_valid"],
        )  # fmt: skip
    if study.get("elsewhere_gains"):
        # the first degradation is the one that all were trained on
        control, arm = (list(study["elsewhere"][rung].values())[1:] for rung in ("control", "frozen"))
        adapted, untouched = (study["elsewhere_gains"][which] for which in ("adapted", "untouched"))
        carries = direction(adapted["low"], adapted["high"], [adapted["points"]])
        text += "\n\n" + words["carries over"][carries] + words["elsewhere"].format(
            total=len(arm), behind=sum(a > b for a, b in zip(control, arm, strict=True)),
            num_test=study["num_elsewhere"], adapted=interval(adapted, language),
            untouched=interval(untouched, language),
        )  # fmt: skip
    return text


def odd_runs(study: dict) -> tuple[list[str], list[int], list[str], str]:
    """What was trained in another precision than most of the ladder: arms, seeds, precisions; and the usual precision.

    study["precision"]: {arm: a precision for each of its seeds}.
    """
    trained = [(arm, seed, kind) for arm, kinds in study["precision"].items()
               for seed, kind in zip(study["settings"]["seeds"], kinds, strict=False)]  # fmt: skip
    usual = statistics.mode(kind for _, _, kind in trained)
    odd = [run for run in trained if run[2] != usual]
    return *(list(dict.fromkeys(run[k] for run in odd)) for k in range(3)), usual


def other_precision(study: dict, language: str) -> str:
    """`odd_runs` in a sentence; "" where there are none."""
    words, (arms, seeds, kinds, usual) = WORDS[language], odd_runs(study)
    if not arms:
        return ""
    return words["other precision"].format(
        arms=words["comma"].join(words[arm] for arm in arms), seeds=words["comma"].join(map(str, seeds)),
        other=words["comma"].join(kinds), usual=usual,
    )  # fmt: skip


def num_steps(run: dict) -> int:
    return run["settings"]["num_epochs"] * run["settings"]["steps_per_epoch"]


def signed(value: float) -> str:
    """+0.50, −0.25 (with a minus sign, not a hyphen), and 0.00 for what rounds to it."""
    text = f"{value:+.2f}"
    return text.replace("-", "−") if float(text) else "0.00"


def in_points(difference: tuple[float, float, float]) -> dict[str, float]:
    """A difference of shares and its interval, as `metrics.paired_bootstrap` returns it, in points."""
    return dict(zip(("points", "low", "high"), (100 * value for value in difference), strict=True))


def interval(step: dict, language: str) -> str:
    """A difference in points with its interval: "**+0.50** (+0.10 to +0.90)"."""
    return WORDS[language]["step"].format(**{name: signed(step[name]) for name in ("points", "low", "high")})


def ladder(study: dict, language: str) -> str:
    """The rungs as a Markdown table, the seed's figures beside ours."""
    head = WORDS[language]["ladder"].format(data=study["test_data"], num_test=study["num_test"])
    rows = [head, "| :-- | --: | --: | :-: | --: | --: | --: |"]
    for row in study["summary"]:
        spread = f"{100 * row['lowest']:.2f} – {100 * row['highest']:.2f}" if row["seeds"] > 1 else "–"
        psnr_db = "–" if row["psnr_db"] is None else f"{row['psnr_db']:.2f}"
        seed = f"{SEED_000[row['rung']]:.2f}" if row["rung"] in SEED_000 else "–"
        cells = [WORDS[language][row["rung"]], f"{100 * row['accuracy']:.2f}", str(row["seeds"]), spread, psnr_db]
        rows.append(f"| {' | '.join([*cells, format(row['ssim'], '.4f'), seed])} |")
    return "\n".join(rows)


def enlargement(run: dict, language: str) -> str:
    """Super-resolution x2 as a Markdown table: a row a method, PSNR / SSIM by set and protocol."""
    words = WORDS[language]
    scores = {(row["set"], row["protocol"], row["method"]): row for row in run["summary"]}
    columns = [("Set5", "literature"), ("Set14", "literature"), ("Set14", "seed")]
    heads = [f"{name}, {words['rgb' if protocol == 'seed' else protocol]}" for name, protocol in columns]
    rows = [words["enlargement"].format(" | ".join(heads)), "| :-- |" + " --: |" * len(columns)]
    for method in dict.fromkeys(row["method"] for row in run["summary"]):
        cells = [scores[(*column, method)] for column in columns]
        cells = [f"{cell['psnr_db']:.2f} / {cell['ssim']:.4f}" for cell in cells]
        network, averaged = method.removesuffix(", self-ensemble"), method.endswith(", self-ensemble")
        name = words["self-ensemble"].format(words[network]) if averaged else words[network]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    for name, (set5, set5_ssim, set14, set14_ssim) in PUBLISHED.items():
        rows.append(f"| *{name}* | *{set5:.2f} / {set5_ssim:.4f}* | *{set14:.2f} / {set14_ssim:.4f}* | – |")
    rows.append(f"| {words['seed']} | – | – | {SEED_000['psnr_db']:.2f} / {SEED_000['ssim']:.4f} |")
    return "\n".join(rows)


def set14_offset(run: dict, published: dict[str, tuple]) -> float:
    """By how many dB our bicubic row lies above the published one on Set14."""
    rows = {(row["set"], row["method"]): row for row in run["summary"] if row.get("protocol") in (None, "literature")}
    return rows["Set14", "bicubic"]["psnr_db"] - published["bicubic"][2]


def enlargement_x4(srgan: dict, resshuffle: dict, language: str) -> str:
    """Super-resolution x4 as a Markdown table: PSNR / SSIM / NIQE by set, then what others report."""
    words = WORDS[language]
    rows = {(row["set"], row["method"]): row for row in resshuffle["summary"] if row["protocol"] == "literature"}
    rows |= {(row["set"], row["method"]): row for row in srgan["summary"]}

    def cell(row: dict) -> str:
        values = zip(("psnr_db", "ssim", "niqe"), (".2f", ".4f", ".2f"), strict=True)
        return " / ".join("–" if row.get(name) is None else format(row[name], digits) for name, digits in values)

    lines = [words["enlargement x4"], "| :-- | --: | --: |"]
    for method in ("nearest", "bicubic", "srresnet", "resshuffle", "srgan", "truth"):
        cells = [cell(rows[name, method]) for name in ("Set5", "Set14")]
        lines.append(f"| {words[method]} | {' | '.join(cells)} |")
    for name, (set5, set5_ssim, set14, set14_ssim, *_) in PUBLISHED_X4.items():
        if set5:
            cells = [f"*{psnr_db:.2f} / {f'{ssim:.4f}' if ssim else '–'} / –*"
                     for psnr_db, ssim in ((set5, set5_ssim), (set14, set14_ssim))]  # fmt: skip
            lines.append(f"| *{name}* | {' | '.join(cells)} |")
    return "\n".join(lines)


def direction(low: float, high: float, by_seed: Sequence[float], **_) -> str:
    """What a difference says: "helps" or "harms" where its interval and every training seed agree, else "neither"."""
    if low > 0 and min(by_seed) > 0:
        return "helps"
    return "harms" if high < 0 and max(by_seed) < 0 else "neither"


def amount(gain: dict, language: str = "en") -> str:
    """A difference with its interval, and seed by seed where there are several: "**+0.50** (+0.10 to +0.90)"."""
    words, by_seed = WORDS[language], gain["by_seed"]
    seeds = words["by seed"].format(gains=", ".join(map(signed, by_seed))) if len(by_seed) > 1 else ""
    return words["amount"].format(**{name: signed(gain[name]) for name in ("difference", "low", "high")}, seeds=seeds)


def sweep(results: Path) -> dict[float | str, dict]:
    """Validation scores of the joint networks of seed 0 by their lambda, of the other arms by their name."""
    runs = {}
    for path in (Path(results) / "joint_restoration" / "seed0").glob("*/run.json"):
        run, (name, _, value) = json.loads(path.read_text(encoding="utf-8")), path.parent.name.partition("_")
        weights = {"joint": run["settings"]["lambda_restore"], "lambda": value}
        if run["finished"]:
            runs[float(weights[name]) if name in weights else name] = run["validation"]
    return runs


def joint_restoration(run: dict, language: str, tried: dict[float | str, dict]) -> str:
    """What joint classification and restoration brought, in words, its arms as a Markdown table, and a note.

    run: the notebook's run.json; tried: `sweep`.
    """
    words, settings, gains = WORDS[language], run["settings"], run["differences"]
    text = words["joint restoration"].format(
        **{name: words[direction(**gain)] for name, gain in gains.items()}, points=amount(gains["accuracy"], language),
        decibels=amount(gains["psnr_db"], language), data=run["test_data"], num_test=run["num_test"],
        sigma=settings["sigma"], hole=settings["hole"], weight=settings["lambda_restore"],
    )  # fmt: skip
    joint = {value: scores for value, scores in tried.items() if isinstance(value, float)}
    best = max(joint, key=lambda value: joint[value]["psnr_db_valid"])
    text += words["sweep"].format(
        num=len(joint), best=best, psnr_db=joint[best]["psnr_db_valid"], accuracy=100 * joint[best]["accuracy_valid"],
        restore=tried["restore"]["psnr_db_valid"], classify=100 * (p := tried["classify"]["accuracy_valid"]),
        weight=settings["lambda_restore"], doubt=196 * (p * (1 - p) / settings["num_valid"]) ** 0.5,
    )  # fmt: skip
    rows = {(row["damage"], row["arm"]): row for row in run["summary"]}

    def cell(value: float | None, factor: int = 1) -> str:
        return "–" if value is None else f"{factor * value:.2f}"

    lines = [words["arms"], "| :-- | --: | --: | --: | --: |"]
    for arm in ("untouched", "classify", "restore", "joint", "separate"):
        both = rows["both", arm]
        cells = [cell(both["accuracy"], 100), cell(both["psnr_db"]), cell(both["inside"])]
        name = words["shared" if arm == "joint" else arm]
        lines.append(f"| {name} | {' | '.join([*cells, cell(rows['noise', arm]['psnr_db'])])} |")
    apart = SEED_002["classification alone"][0], SEED_002["restoration alone"][1]
    for name, figures in (("seed, apart", apart), ("seed, joint", SEED_002["joint"])):
        lines.append(f"| {words[name]} | {figures[0]} | {figures[1]} | – | – |")
    note = words["note on the arms"].format(
        seeds=len(settings["seeds"]), precision=", ".join(run["precision"]), steps=num_steps(run),
        batch=settings["batch_size"],
    )
    return "\n\n".join([text, "\n".join(lines), note])


def colorization(run: dict, language: str) -> str:
    """Colorization: the finding, a Markdown table, and its note."""
    words = WORDS[language]
    rows = {row["method"]: row for row in run["summary"]}
    grey, ours, after_seed = rows["grey"], rows["chroma"], ("mse", "perceptual", "regularised", "fast", "slow")
    text = words["colorization"].format(
        better=sum(rows[name]["PSNR (dB)"] >= grey["PSNR (dB)"] for name in after_seed), grey=grey["PSNR (dB)"],
        pooled=sum(rows[name]["pooled PSNR (dB)"] >= grey["pooled PSNR (dB)"] for name in after_seed),
        grey_pooled=grey["pooled PSNR (dB)"],
        ours=ours["PSNR (dB)"], named_grey=grey["accuracy (%)"], named_ours=ours["accuracy (%)"],
    )  # fmt: skip
    lines = [words["colours"], "| :-- | --: | --: | --: | --: |"]
    for row in run["summary"]:
        psnr_db = "–" if row["PSNR (dB)"] is None else f"{row['PSNR (dB)']:.2f}"
        cells = [psnr_db, f"{row['SSIM']:.4f}", f"{row['chroma error']:.1f}", f"{row['accuracy (%)']:.1f}"]
        name = words["coloured" if row["method"] == "truth" else row["method"]]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    note = words["note on colours"].format(
        num_test=run["num_test"], data=run["test_data"], features=run["data"]["features"].split(",")[0],
        steps=num_steps(run), epochs=run["settings"]["num_epochs"],
    )  # fmt: skip
    return "\n\n".join([text, "\n".join(lines), note])


def section(language: str, results: Path = ROOT / "results") -> str:
    """Everything between the markers."""
    words = WORDS[language]
    study, sr, classifier = (read(task, results) for task in ("multi", "task1", "task2"))
    plain, mirrored = (f"{100 * classifier['summary'][name]:.2f} %" for name in ("clean", "clean, mirror averaged"))
    clean = words["classification"].format(
        plain=plain, mirrored=mirrored, num_test=classifier["num_test"], epochs=classifier["settings"]["num_epochs"],
        seed=SEED_000["clean"],
    )  # fmt: skip
    cost = {row["rung"]: row["GFLOP, training"] for row in study["summary"]}
    note = words["note on the ladder"].format(
        **study["settings"], steps=num_steps(study), times=cost["joint"] / cost["control"],
        precision=other_precision(study, language),
    )
    parts = [finding(study, language), words["ladder figure"], ladder(study, language), note, words["stages figure"]]
    parts.append(clean)
    patterns = {"sr": "task1/run.json", "classifier": "task2/run.json", "arms": "multi/seed*/*/run.json"}
    runs = {part: [json.loads(path.read_text(encoding="utf-8")) for path in Path(results).glob(pattern)]
            for part, pattern in patterns.items()}  # fmt: skip
    minutes = {part: sum(run["time_seconds"] for run in part_runs) / 60 for part, part_runs in runs.items()}
    longer = ""
    if any(row["method"] == "srnet_longer" for row in sr["summary"]):
        second = json.loads((Path(results) / "task1" / "longer" / "run.json").read_text(encoding="utf-8"))
        longer = words["longer"].format(
            steps=num_steps(second), precision=second["precision"], minutes=second["time_seconds"] / 60
        )
    note = words["note on enlargement"].format(
        data=sr["data"]["name"], steps=num_steps(sr), precision=sr["precision"], offset=set14_offset(sr, PUBLISHED),
        longer=longer,
    )
    parts += [enlargement(sr, language), note]
    srgan, resshuffle = (read(task, results) for task in ("srgan_x4", "resshuffle_x4"))
    srresnet = json.loads((Path(results) / "srgan_x4" / "srresnet" / "run.json").read_text(encoding="utf-8"))
    times = {"srgan": srgan, "resshuffle": resshuffle, "srresnet": srresnet}
    times = {name: run["time_seconds"] / 60 for name, run in times.items()}
    note = words["note on x4"].format(
        **times, srresnet_steps=num_steps(srresnet), resshuffle_steps=num_steps(resshuffle),
        data=srgan["data"]["name"], features=srgan["data"]["features"].split(",")[0],
        offset=set14_offset(srgan, PUBLISHED_X4), seed_003=PUBLISHED_X4["seed 003"][4],
    )  # fmt: skip
    parts += [enlargement_x4(srgan, resshuffle, language), note]
    parts.append(joint_restoration(read("joint_restoration", results), language, sweep(results)))
    parts.append(colorization(read("colorization", results), language))
    all_runs = [run for part_runs in runs.values() for run in part_runs]
    versions = {run["environment"]["torch"].split("+")[0] for run in all_runs}
    threads = {run["environment"]["device"].replace(" 1 threads", " 1 thread") for run in all_runs}  # as once written
    environment = {"device": "; ".join(sorted(threads)), "torch": ", ".join(sorted(versions))}
    precisions = ", ".join(sorted({run["precision"] for run in all_runs}))
    parts.append(words["time"].format(**minutes, **environment, precision=precisions))
    return "\n\n".join(parts) + "\n"


def reliability(language: str, results: Path = ROOT / "results") -> str:
    """What tests/faults.py tried and what was survived, from results/faults.json."""
    words, faults = WORDS[language], json.loads((Path(results) / "faults.json").read_text(encoding="utf-8"))["faults"]
    rows = [f"| {words[name]} | {count['tried']:,} | {count['survived']:,} |" for name, count in faults.items()]
    return "\n".join([words["faults"], "| :-- | --: | --: |", *rows]) + "\n"


def speed(language: str, results: Path = ROOT / "results") -> str:
    """What tests/bench.py measured, from results/bench.json."""
    words, bench = WORDS[language], json.loads((Path(results) / "bench.json").read_text(encoding="utf-8"))
    lines = [words["bench"], "| :-- | :-- | --: | --: |"]
    for row in bench["rows"]:
        target = "–" if row["target"] is None else f"{row['target']:g}"
        missed = f" ({words['missed']})" if row["target"] is not None and row["ratio"] < row["target"] else ""
        gigabytes = ", ".join(f"{value:.1f}" for value in row.get("peak memory (GB)", {}).values())
        what = row["what"] + (f" ({words['memory']}: {gigabytes} GB)" if gigabytes else "")
        lines.append(f"| {what} | {row['against']} | {row['ratio']:.2f} | {target}{missed} |")
    epochs = {"en": "; ", "zh": "；"}[language].join(
        words["epochs"].format(
            what=words[f"epochs, {row['name']}"].format(**row), ours=row["epochs"]["ours"],
            seed=row["epochs"]["seed 000"],
        )
        for row in bench["epochs"]
    )
    return "\n".join(lines) + "\n\n" + words["note on bench"].format(**bench["environment"], epochs=epochs) + "\n"


SECTIONS = {"results": section, "reliability": reliability, "speed": speed}  # by the name of their markers


def main() -> int:
    for name, language in EDITIONS.items():
        path = ROOT / name
        readme = path.read_text(encoding="utf-8")
        for mark, make in SECTIONS.items():
            markers = re.compile(MARKERS.format(mark), re.S)
            if markers.search(readme):
                text = make(language)
                readme = markers.sub(lambda match, text=text: match[1] + text + match[2], readme)
        path.write_text(readme, encoding="utf-8")
        print(f"{name}: results written")
    return 0
